"""Runs the race that `race.sh` describes and prints its tables as Markdown."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

from losses import difference
from same_step import Step

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "..", "target", "release", "simclr")
# Steps to time after the first: about as long for each.
STEPS = {"resnet18_b32": 10, "resnet18_b128": 4, "narrow": 20, "resnet50_224": 4}
# Sides and steps whose compiled programs are kept already.
FILLED = set()
SIDES = ["simclr", "jax", "torch", "torch.compile"]
ROWS = [
    ("images per second", "images_per_second", 1, 1),
    ("compile, s", "compile_seconds", 1, 1),
    ("start of the process to the end of the first step, s", "first_step_seconds", 1, 1),
    ("the same at later starts, s", "later_first_step_seconds", 1, 1),
    ("most memory of the device in use, MiB", "peak_device_memory_bytes", 2**-20, 0),
    ("most memory of the process, MiB", "peak_memory_bytes", 2**-20, 0),
    ("processor time per image, ms", "cpu_seconds_per_image", 1e3, 2),
]


def run(command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def command(side, step, dump, steps, settings):
    if side.startswith("simclr"):
        config = ["--config", os.path.join(HERE, "steps", f"{step}.yaml"), *settings, *side.split()[1:]]
        return [PROGRAM, "bench", "--quiet", "--json", "--step-only", "--steps", str(steps), *config]
    script, *more = {"jax": ["jax_step.py"], "torch": ["torch_step.py"], "torch.compile": ["torch_step.py", "compile"]}[side]
    return [sys.executable, os.path.join(HERE, script), dump, str(steps), *more]


def later_start(side, step, dump, folder, settings):
    """Seconds to the end of the first step when an earlier process has left its compiled program; none where a side keeps none."""
    if side.startswith("simclr"):
        start = lambda: run(command(side, step, dump, 1, settings) + ["--cached"], XDG_CACHE_HOME=cache(folder))
    elif side == "jax":
        start = lambda: run(command(side, step, dump, 1, settings), JAX_COMPILATION_CACHE_DIR=os.path.join(folder, "jax"))
    else:
        return None
    if (side, step) not in FILLED:
        FILLED.add((side, step))
        start()
    return start()["first_step_seconds"]


def cache(folder):
    """A cache of compiled programs for the race alone, with the plugins of the user's."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.makedirs(os.path.join(folder, "simclr"), exist_ok=True)
    link = os.path.join(folder, "simclr", "plugins")
    if not os.path.exists(link):
        os.symlink(os.path.join(own, "simclr", "plugins"), link)
    return folder


def table(step, sides, results, dump):
    """`results[side][round]`; ratios are those of one round."""
    print(f"\n{step}, median of {len(results[sides[0]])} round(s); in brackets the spread, then simclr's ratio to that side in each round\n")
    print("| | " + " | ".join(sides) + " |")
    print("|---|" + "---|" * len(sides))
    for name, key, scale, digits in ROWS:
        if all(result[key] is None for side in sides for result in results[side]):
            continue
        cells = []
        for side in sides:
            if results[side][0][key] is None:
                cells.append("–")
                continue
            values = [result[key] * scale for result in results[side]]
            cell = f"{statistics.median(values):,.{digits}f}"
            if len(values) > 1:
                cell += f" ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
            if side != "simclr" and "simclr" in results and results["simclr"][0][key] is not None:
                ratios = [a[key] / b[key] for a, b in zip(results["simclr"], results[side])]
                cell += "; " + ", ".join(f"{ratio:.2f}" for ratio in ratios)
            cells.append(cell)
        print(f"| {name} | " + " | ".join(cells) + " |")
    dumped = Step(dump)
    work = dumped.flops() / dumped.batch
    rates = [statistics.median(result["images_per_second"] for result in results[side]) * work * 1e-12 for side in sides]
    print("| convolutions and matrix products, TFLOP/s | " + " | ".join(f"{rate:,.2f}" for rate in rates) + " |")
    losses = [results[side][0]["losses"] for side in sides]
    print(f"| loss before step 1 | " + " | ".join(f"{values[0]:.4f}" for values in losses) + " |")
    last = len(losses[0]) - 1
    print(f"| loss after {last} steps | " + " | ".join(f"{values[last]:.4f}" for values in losses) + " |", flush=True)
    apart = difference(dict(zip(sides, losses)))
    if apart:
        sys.exit(f"{step}: {apart}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", nargs="*", default=list(STEPS), metavar="STEP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the configuration, for all sides")
    parser.add_argument("--count", type=int, help="steps to time instead of each step's own number")
    parser.add_argument("--no-later", action="store_true", help="leave out the later starts")
    arguments = parser.parse_args()
    sides = re.split(r",(?![^\[]*\])", arguments.sides)  # a list of passes has commas of its own
    with tempfile.TemporaryDirectory() as folder:
        for step in arguments.steps:
            dump = os.path.join(folder, "step.safetensors")
            config = os.path.join(HERE, "steps", f"{step}.yaml")
            subprocess.run([PROGRAM, "bench", "--quiet", "--config", config, *arguments.set, "--dump", dump], check=True)
            results = {side: [] for side in sides}
            for _ in range(arguments.rounds):
                for side in sides:
                    found = run(command(side, step, dump, arguments.count or STEPS[step], arguments.set))
                    found["later_first_step_seconds"] = None
                    if not arguments.no_later:
                        found["later_first_step_seconds"] = later_start(side, step, dump, folder, arguments.set)
                    results[side].append(found)
            table(step, sides, results, dump)


main()
