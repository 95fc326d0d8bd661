"""The renter's table: which recipe fits on which slice, and how fast the compiler thinks it is.

    python3 bench/pods_table.py [--only TEXT] RESULTS.jsonl

Compiles each network at each batch for each slice with `simclr compile` and appends what it says to RESULTS.jsonl; what is there already
is not compiled again unless it failed, so that the hours can be spent in pieces. Prints the table as Markdown. The program must be built.
"""

import argparse
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
BATCHES = [256, 512, 1024, 2048, 4096, 8192]
SLICES = ["v3-8", "v3-32", "v3-128", "v4-32", "v5litepod-64", "v6e-64"]


def key(row):
    return row["network"], row["batch"], row["slice"]


def compile_one(network, batch, slice_name):
    command = [
        HERE / "target/release/simclr", "compile", "--quiet", "--json", "--config", HERE / "configs/imagenet_resnet50.yaml",
        "--topology", slice_name, f"train_batch_size={batch}", *NETWORKS[network],
    ]
    found = subprocess.run(command, capture_output=True, text=True)
    row = {"network": network, "batch": batch, "slice": slice_name}
    if found.returncode in (0, 4):
        return row | json.loads(found.stdout)
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
        out.write("\n" * cut_off + json.dumps(row) + "\n")


def impossible(row):
    """Whether it failed for a reason that stays: the batch cannot be shared by so many devices."""
    return "multiple of the number of devices" in row["error"]


def cell(row):
    if row is None:
        return "not compiled"
    if "error" in row:
        return "–" if impossible(row) else "error"
    if not row["fits"]:
        needed = row.get("needed") or row.get("memory_total")
        return f"no ({needed / 2**30:.0f} GiB)" if needed else "no"
    return f"{row['memory_total'] / 2**30:.1f} GiB, {1e3 * row['optimal_seconds']:.0f} ms" if row["optimal_seconds"] else "fits"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--only", default="", help="compile only rows whose 'network batch slice' holds this text")
    parser.add_argument("--print", action="store_true", help="compile nothing, print what there is")
    arguments = parser.parse_args()
    rows = load(arguments.results)
    for network in NETWORKS:
        for batch in BATCHES:
            for slice_name in SLICES:
                wanted = arguments.only in f"{network} {batch} {slice_name}" and not arguments.print
                before = rows.get((network, batch, slice_name))
                done = before is not None and ("error" not in before or impossible(before))
                if wanted and not done:
                    row = compile_one(network, batch, slice_name)
                    rows[key(row)] = row
                    append(arguments.results, row)
    print("| network | batch | " + " | ".join(SLICES) + " |")
    print("|---|---|" + "---|" * len(SLICES))
    for network in NETWORKS:
        for batch in BATCHES:
            cells = [cell(rows.get((network, batch, slice_name))) for slice_name in SLICES]
            print(f"| {network} | {batch} | " + " | ".join(cells) + " |")


main()
