"""The renter's table: which recipe fits on which slice, and how fast the compiler thinks it is.

    python3 bench/pods_table.py [--only TEXT] [--print] bench/pods_table.jsonl

Compiles each network at each batch for each slice with `simclr compile`, the cells that tell most first, and appends what it says to
the file; what is there already is not compiled again unless it failed, so that the hours can be spent in pieces. Prints the table as
Markdown. The program must be built.

What follows from another cell is not compiled, and marked in the table. Of two cells of one kind of chip, one is the smaller if its
network is part of the other's, and neither its batch nor its images per core are more. Then
* "no ↑": a smaller one does not fit;
* "fits ↓": a larger one does;
* "≈": the time was compiled for another slice of that chip at as many images per core. The compiler's bound has no exchange in it,
  so only the loss, over the whole batch, differs.

Where the compiler tells no time, "[…]" is an estimate of our own (`roofline_seconds` of `simclr compile --json`): its operations at the chip's
peak, or its bytes at the memory's bandwidth, whichever takes longer.

The file is of one form of the recipe: where the step has changed, begin a new one.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
NETWORKS = {
    "ResNet-50 1×": ["resnet_depth=50"],
    "ResNet-50 2×": ["resnet_depth=50", "width_multiplier=2"],
    "ResNet-50 4×": ["resnet_depth=50", "width_multiplier=4"],
    "ResNet-152": ["resnet_depth=152"],
}
CONTAINS = {
    "ResNet-50 1×": set(),
    "ResNet-50 2×": {"ResNet-50 1×"},
    "ResNet-50 4×": {"ResNet-50 1×", "ResNet-50 2×"},
    "ResNet-152": {"ResNet-50 1×"},
}
BATCHES = [256, 512, 1024, 2048, 4096, 8192]
# Devices of each slice: cores of a v3, chips of the others.
SLICES = {"v3-8": 8, "v3-32": 32, "v3-128": 128, "v4-32": 16, "v5litepod-64": 64, "v6e-64": 64}
# The paper's batch first.
ORDER = list(itertools.chain(
    itertools.product([4096], NETWORKS, SLICES),
    itertools.product([2048, 1024, 512, 256, 8192], NETWORKS, SLICES),
))
KEPT = ["network", "batch", "slice", "fits", "memory_total", "capacity", "needed", "optimal_seconds", "flops", "bytes_accessed",
        "roofline_seconds", "total_steps", "hours", "steps_per_launch", "compile_cpu_seconds", "compiler", "module_hash", "error"]


def chip(slice_name):
    return slice_name.split("-")[0]


def per_core(batch, slice_name):
    return batch / SLICES[slice_name]


def key(row):
    return row["network"], row["batch"], row["slice"]


def smaller(one, other):
    """Whether cell `one` needs no more memory than cell `other`, by what a step keeps."""
    (network, batch, slice_name), (network_2, batch_2, slice_2) = one, other
    return (
        one != other and chip(slice_name) == chip(slice_2)
        and (network == network_2 or network in CONTAINS[network_2])
        and batch <= batch_2 and per_core(batch, slice_name) <= per_core(batch_2, slice_2)
    )


def compile_one(network, batch, slice_name):
    command = [
        HERE / "target/release/simclr", "compile", "--quiet", "--json", "--config", HERE / "configs/imagenet_resnet50.yaml",
        "--topology", slice_name, f"train_batch_size={batch}", *NETWORKS[network],
    ]
    found = subprocess.run(command, capture_output=True, text=True)
    row = {"network": network, "batch": batch, "slice": slice_name}
    if found.returncode in (0, 4):
        row |= json.loads(found.stdout)
        return {name: row[name] for name in KEPT if row.get(name) is not None}
    return row | {"error": found.stderr.strip().splitlines()[0] if found.stderr else f"exit code {found.returncode}"}


def load(path):
    """The rows of a file; a line that was cut off is left out, and so compiled again."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            print(f"skipped a line of {path} that cannot be read: {line[:60]}", file=sys.stderr)
            continue
        rows[key(row)] = row
    return rows


def append(path, row):
    """Begins a new line where the last one was cut off."""
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as out:
        out.write("\n" * cut_off + json.dumps(row, ensure_ascii=False) + "\n")


def impossible(row):
    """Whether it failed for a reason that stays: the batch cannot be shared by so many devices."""
    return "multiple of the number of devices" in row.get("error", "")


def compiled(row):
    return row is not None and "error" not in row


def implied(cell, rows):
    """What other cells say of one: whether it fits, and the row of as many images per core on the same chip; None where they do not."""
    others = [(other, row) for other, row in rows.items() if compiled(row)]
    fits = None
    if any(not row["fits"] and smaller(other, cell) for other, row in others):
        fits = False
    elif any(row["fits"] and smaller(cell, other) for other, row in others):
        fits = True
    network, batch, slice_name = cell
    like = [
        row for (network_2, batch_2, slice_2), row in others
        if network_2 == network and chip(slice_2) == chip(slice_name)
        and per_core(batch_2, slice_2) == per_core(batch, slice_name) and row["fits"]
    ]
    return fits, like[0] if like else None


def to_compile(cell, rows):
    row = rows.get(cell)
    if row is not None and (compiled(row) or impossible(row)):
        return False
    fits, like = implied(cell, rows)
    return fits is not False and like is None


def figures(row, batch):
    """Memory of a device, and time per step and hours of the recipe at this batch: by the compiler, or in brackets by our own estimate."""
    memory = f"{row['memory_total'] / 2**30:.1f} GiB"
    seconds = row.get("optimal_seconds") or row.get("roofline_seconds")
    if not seconds:
        return memory
    hours = seconds * row["total_steps"] * row["batch"] / batch / 3600
    time = f"{1e3 * seconds:.0f} ms, {hours:.1f} h"
    return f"{memory}, {time}" if row.get("optimal_seconds") else f"{memory}, [{time}]"


def text(cell, rows):
    row = rows.get(cell)
    if compiled(row):
        if not row["fits"]:
            needed = row.get("needed") or row.get("memory_total")
            return f"no ({needed / 2**30:.0f} GiB)" if needed else "no"
        return figures(row, cell[1])
    if row is not None and impossible(row):
        return "–"
    fits, like = implied(cell, rows)
    if fits is False:
        return "no ↑"
    if like is not None:
        return f"≈ {figures(like, cell[1])}"
    if fits:
        return "fits ↓"
    return "error" if row is not None else "?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--only", default="", help="compile only cells whose 'network batch slice' holds this text")
    parser.add_argument("--print", action="store_true", help="compile nothing, print what there is")
    arguments = parser.parse_args()
    rows = load(arguments.results)
    for batch, network, slice_name in [] if arguments.print else ORDER:
        cell = network, batch, slice_name
        if arguments.only in f"{network} {batch} {slice_name}" and to_compile(cell, rows):
            row = compile_one(*cell)
            rows[cell] = row
            append(arguments.results, row)
    print("| network | batch | " + " | ".join(SLICES) + " |")
    print("|---|---|" + "---|" * len(SLICES))
    for network in NETWORKS:
        for batch in BATCHES:
            cells = [text((network, batch, slice_name), rows) for slice_name in SLICES]
            print(f"| {network} | {batch} | " + " | ".join(cells) + " |")


main()
