#!/usr/bin/env python3
"""How compile time, the host's part and memory grow with replicas, depth, batch and steps per launch: tables, and a plot as SVG.

    bench/growth.py [--svg FILE] [replicas | depth | batch | launch …]

Needs `cargo build --release`; Python's standard library is enough.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, "..", "target", "release", "simclr")
# A small network: its step is short, so that what the host and the compiler take shows.
BASE = ["--config", os.path.join(HERE, "steps", "narrow.yaml")]
SERIES = {
    "replicas": ("replicas, 32 images each", [1, 2, 4, 8], lambda n: [f"runtime.devices={n}", f"train_batch_size={32 * n}"]),
    "depth": (
        "depth, 8 images",
        [18, 34, 50, 101, 152, 200],
        lambda n: [f"resnet_depth={n}", "train_batch_size=8", "runtime.devices=1"],
    ),
    "batch": ("images per step", [64, 128, 256, 512, 1024], lambda n: [f"train_batch_size={n}"]),
    "launch": ("steps per launch", [1, 4, 16, 64], lambda n: ["train_batch_size=16", f"runtime.steps_per_launch={n}"]),
}
# Pixels of a panel with its title.
WIDE = 300
COLUMNS = [
    ("compile, s", lambda r: r["compile_seconds"], 2),
    ("host per step, ms", lambda r: 1e3 * r["host_wait"] * r["step_seconds"]["median"], 3),
    ("step, ms", lambda r: 1e3 * r["step_seconds"]["median"], 1),
    ("images/s", lambda r: r["images_per_second"], 0),
    ("processor time per image, ms", lambda r: 1e3 * r["cpu_seconds_per_image"], 2),
    ("arguments and temporaries of a device, MiB", lambda r: (r["memory_bytes"]["arguments"] + r["memory_bytes"]["temporaries"]) / 2**20, 0),
    ("memory of the process, MiB", lambda r: r["peak_memory_bytes"] / 2**20, 0),
]


def measure(settings, steps):
    command = [PROGRAM, "bench", "--quiet", "--json", "--step-only", "--steps", str(steps), *BASE, *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def chart(x0, title, values, points, place):
    """One panel: a polyline from zero, over values that double evenly spaced, over others to scale."""
    width, height, left, top = 200, 110, 40, 26
    highest = max(points) or 1
    doubling = all(b % a == 0 for a, b in zip(values, values[1:]))
    along = [i / (len(values) - 1) if doubling else (value - values[0]) / (values[-1] - values[0]) for i, value in enumerate(values)]
    spots = [(x0 + left + width * x, place + top + height * (1 - y / highest)) for x, y in zip(along, points)]
    parts = [f'<text x="{x0 + left}" y="{place + 14}" font-weight="bold">{title}</text>']
    parts.append(f'<path d="M{x0 + left},{place + top} v{height} h{width}" fill="none" stroke="#888"/>')
    parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}" fill="none" stroke="#2563eb" stroke-width="2"/>')
    for (x, y), value in zip(spots, values):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#2563eb"/>')
        parts.append(f'<text x="{x:.1f}" y="{place + top + height + 14}" text-anchor="middle">{value}</text>')
    label = f"{highest:,.0f}" if highest >= 100 else f"{highest:.3g}"
    parts.append(f'<text x="{x0 + left - 4}" y="{place + top + 8}" text-anchor="end">{label}</text>')
    return parts


def plot(results, path):
    """A row of panels for each series."""
    shown = [COLUMNS[i] for i in (0, 1, 4, 6)]
    parts, row = [], 170
    for place, (series, found) in enumerate(results.items()):
        values = SERIES[series][1]
        for column, (name, figure, _) in enumerate(shown):
            points = [figure(result) for result in found]
            parts += chart(WIDE * column, f"{name} / {series}", values, points, row * place)
    with open(path, "w") as file:
        size = f'width="{WIDE * len(shown)}" height="{row * len(results)}"'
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n')
        file.write('<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("series", nargs="*", default=list(SERIES), metavar="SERIES")
    parser.add_argument("--svg")
    arguments = parser.parse_args()
    results = {}
    for series in arguments.series:
        title, values, settings = SERIES[series]
        print(f"\n| {title} | " + " | ".join(name for name, _, _ in COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
        results[series] = []
        for value in values:
            found = measure(settings(value), 8 * value if series == "launch" else 8)
            results[series].append(found)
            cells = [f"{figure(found):,.{digits}f}" for _, figure, digits in COLUMNS]
            print(f"| {value} | " + " | ".join(cells) + " |", flush=True)
    if arguments.svg:
        plot(results, arguments.svg)


if __name__ == "__main__":
    main()
