#!/usr/bin/env python3
"""Where the processor's time of a running step goes, kernel by kernel, as `perf` samples it (Linux, x86-64 or aarch64).

    bench/kernels.py [--seconds 10] [--after 4] [--top 40] [--keep DIR] -- CONFIG [KEY=VALUE…]

The CPU plugin's profiler says nothing. So `perf` samples a `simclr bench` that lets the plugin write what it compiles, and code without a
name is looked up in those object files. Convolutions, matrix products and most elementwise operations are loops of the program's own; the
products of `winograd` count as `convolution` and `kernel_gradient`.
`--keep` leaves the plugin's files in a folder: kernels as MLIR, as LLVM's code and as objects, and the module.
"""

import argparse
import bisect
import collections
import glob
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "..", "target", "release", "simclr")


def functions(raw):
    """`(name, code, places of relocations)` of every function of every ELF object inside these bytes."""
    for start in re.finditer(rb"\x7fELF\x02\x01\x01", raw):
        elf = raw[start.start() :]
        offset, count = struct.unpack_from("<Q", elf, 0x28)[0], struct.unpack_from("<H", elf, 0x3C)[0]
        sections = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + 64 * i) for i in range(count)]
        for table in (section for section in sections if section[1] == 2):
            names = sections[table[6]][4]
            for i in range(table[5] // 24):
                name, info, _, index, value, size = struct.unpack_from("<IBBHQQ", elf, table[4] + 24 * i)
                if info & 15 != 2 or index >= count or size == 0:
                    continue
                code = elf[sections[index][4] + value :][:size]
                relocations = []
                for section in (s for s in sections if s[1] == 4 and s[7] == index):
                    places = (struct.unpack_from("<Q", elf, section[4] + 24 * j)[0] for j in range(section[5] // 24))
                    relocations += [place - value for place in places if value <= place < value + size]
                yield elf[names + name : elf.index(b"\0", names + name)].decode(), code, sorted(relocations)


def executable_memory(pid):
    """`(address, bytes)` of mappings that are executable and of no file."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            fields = line.split()
            if "x" in fields[1] and (len(fields) < 6 or fields[5].startswith("/memfd")):
                low, high = (int(part, 16) for part in fields[0].split("-"))
                memory.seek(low)
                yield low, memory.read(high - low)


def places(kernels, memory):
    """`(address, size, name)` of the functions that are found in memory, by their longest piece without relocations."""
    for name, code, relocations in kernels:
        ends = relocations + [len(code)]
        begins = [0] + [place + 8 for place in relocations]
        begin, end = max(zip(begins, ends), key=lambda piece: piece[1] - piece[0])
        for low, content in memory:
            found = content.find(code[begin:end])
            while found >= 0:
                yield low + found - begin, len(code), name
                found = content.find(code[begin:end], found + 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config", nargs="+")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--after", type=float, default=4)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump = arguments.keep or os.path.join(folder, "dump")
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump} --xla_dump_hlo_as_text"
        bench = [PROGRAM, "bench", "--quiet", "--step-only", "--steps", "100000", "--config", *arguments.config]
        running = subprocess.Popen(bench, env=os.environ | {"XLA_FLAGS": flags}, stdout=subprocess.DEVNULL)
        # It runs when nothing was compiled for a while.
        compiled = lambda: len(glob.glob(os.path.join(dump, "*.o")))
        if compiled() > 0:
            running.kill()
            parser.error(f"{dump} holds objects of another run; name an empty folder")
        before = -1
        while compiled() != before or before == 0:
            if running.poll() is not None:
                sys.exit(f"simclr bench ended with code {running.returncode} before it could be sampled")
            before = compiled()
            time.sleep(arguments.after)
        data = os.path.join(folder, "perf.data")
        sample = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-p", str(running.pid), "-o", data]
        subprocess.run([*sample, "sleep", str(arguments.seconds)], check=True)
        memory = list(executable_memory(running.pid))
        running.kill()
        running.wait()
        objects = [open(name, "rb").read() for name in glob.glob(os.path.join(dump, "*.o"))]
        known = sorted(places((function for raw in objects for function in functions(raw)), memory))
        script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True).stdout
    starts = [place[0] for place in known]
    families, kernels = collections.Counter(), collections.Counter()
    for line in script.splitlines():
        match = re.match(r"\s*([0-9a-f]+) (.*) \(([^()]*)\)$", line)
        if not match:
            continue
        address, symbol, file = int(match[1], 16), match[2], os.path.basename(match[3])
        place = bisect.bisect_right(starts, address) - 1
        if file.startswith("perf-") or "anon" in file or "unknown" in file:
            inside = place >= 0 and address < known[place][0] + known[place][1]
            name = known[place][2] if inside else "code without a name"
            family = "compiled: " + re.sub(r"[.\d]+$", "", name) if inside else name
        elif file == os.path.basename(PROGRAM) and (loop := re.search(r"loops::(winograd|convolution|kernel_gradient|column_sums|elementwise)", symbol)):
            name = family = f"our loops: {loop[1]}"
        elif "kernel" in file:
            name = family = "the system"
        else:
            name = family = f"{file}: " + re.sub(r"Eigen::internal::|<.*", "", symbol)
        families[family] += 1
        kernels[name] += 1
    for title, counter in ("family", families), ("kernel", kernels):
        print(f"\n| {title} | share |\n|---|---|")
        for name, count in counter.most_common(arguments.top):
            print(f"| {name} | {100 * count / counter.total():.1f} % |")


main()
