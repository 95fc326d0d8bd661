#!/usr/bin/env python3
"""Bytes that the kernels of a GPU's program read and write, by kind, from the compiler's dump:

    simclr compile --target cuda:h200 --dump DIR --config CONFIG [KEY=VALUE…]
    bench/traffic.py DIR

Counted is the computation with most convolutions, which is a step. Every kernel reads its operands and writes its results once; what it has
of a loop's whole state is left out, since it reads a few numbers of it.
"""

import collections
import glob
import os
import re
import sys

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\]")
INSTRUCTION = re.compile(r"(?:ROOT )?%([\w.\-]+) = (\(.*?\)|[\w\[\],{}:()*]+?) ([\w\-]+)\(([^)]*)\)(.*)$")
# What is no kernel.
NOTHING = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "replica-id"}
# An operand of more arrays is a loop's state.
MOST = 60


def size(shape):
    total = 0
    for kind, dims in ARRAY.findall(shape):
        if kind not in BYTES:
            sys.exit(f"no size is known of {kind}; add it to BYTES")
        count = BYTES[kind]
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        total += count
    return total


def computations(text):
    found, current = {}, None
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            current = found.setdefault(head.group(1), [])
        elif current is not None and (match := INSTRUCTION.match(line.strip())):
            current.append(match.groups())
    return found


def kind(op, rest, found):
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    called = re.search(r"calls=%?([\w.\-]+)", rest)
    if target:
        return target.group(1)
    inside = {op for _, _, op, _, _ in found.get(called.group(1), [])} if called else {op}
    for name in ["scatter", "reduce", "dot"]:
        if name in inside:
            return f"fusions with a {name}"
    return "other fusions" if called else op


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = glob.glob(os.path.join(sys.argv[1], "**", "*gpu_after_optimizations.txt"), recursive=True)
    if len(files) != 1:
        sys.exit(f"{sys.argv[1]} holds {len(files)} programs (*gpu_after_optimizations.txt), expected 1; dump into an empty folder")
    found = computations(open(files[0]).read())
    convolutions = lambda body: sum("__cudnn$conv" in rest for *_, rest in body)
    step = max(found.values(), key=convolutions)
    if not convolutions(step):
        sys.exit(f"{files[0]} has no convolutions by cuDNN, by which a step is known")
    shapes = {name: shape for name, shape, *_ in step}
    total, count = collections.Counter(), collections.Counter()
    for name, shape, op, operands, rest in step:
        if op in NOTHING:
            continue
        read = {operand for operand in re.findall(r"%([\w.\-]+)", operands)}
        of = kind(op, rest, found)
        arrays = [shapes.get(operand, "") for operand in read]
        total[of] += size(shape) + sum(size(array) for array in arrays if len(ARRAY.findall(array)) <= MOST)
        count[of] += 1
    print("| kernels | count | GB |\n|---|---|---|")
    for of, amount in total.most_common():
        print(f"| {of} | {count[of]} | {amount * 1e-9:.3f} |")
    print(f"| all | {sum(count.values())} | {sum(total.values()) * 1e-9:.3f} |")


main()
