"""What the Python sides of the race share: the step that `simclr bench --dump` wrote, the walk through the network, the timing.

A side gives an object of primitives (`conv`, `norm`, `relu`, `add`, `max_pool`, `global_mean`) on its own arrays; `network` calls them
in the order in which the step's variables were made.
"""

import json
import os
import resource
import sys
import time

import numpy as np


def started():
    """When this process started, on the clock of `time.time()`."""
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        ticks = float(stat.read().rsplit(")", 1)[1].split()[19])
        running = float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - running


class Step:
    """The dumped step: `arrays` by name, the names of the variables in order, and the numbers that go with them."""

    def __init__(self, path):
        with open(path, "rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            body = np.frombuffer(file.read(), np.uint8)
        step = json.loads(head.pop("__metadata__")["step"])
        self.__dict__.update(step)
        self.arrays = {}
        for name, entry in head.items():
            low, high = entry["data_offsets"]
            self.arrays[name] = body[low:high].view({"F32": np.float32}[entry["dtype"]]).reshape(entry["shape"])

    def parameters(self):
        """Trained variables in the order in which they were made."""
        return {name: self.arrays[name] for name in self.variables if "/moving_" not in name}

    def flops(self):
        """Floating-point operations of convolutions and matrix products of a step, forward and backward: a multiplication and an
        addition are two; the images have no gradient."""
        ops = Counting()
        network(ops, self, self.parameters(), np.broadcast_to(np.float32(0), self.arrays["views"].shape))
        return 3 * ops.flops - ops.first

    def decayed(self, name):
        """Whether weight decay applies."""
        return name.endswith("/kernel")


class Counting:
    """Primitives that compute nothing but shapes, and count."""

    flops = first = 0

    def conv(self, x, w, stride):
        shape = x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), w.shape[3]
        count = 2 * int(np.prod(shape)) * int(np.prod(w.shape[:3]))
        self.first = self.first or count
        self.flops += count
        return np.broadcast_to(np.float32(0), shape)

    def norm(self, x, gamma, beta, name):
        return x

    def relu(self, x):
        return x

    def add(self, x, y):
        return x

    def max_pool(self, x):
        return x[:, ::2, ::2]

    def global_mean(self, x):
        return x[:, 0, 0]

    def matmul(self, x, w):
        self.flops += 2 * len(x) * int(np.prod(w.shape))
        return np.broadcast_to(np.float32(0), (len(x), w.shape[1]))


BLOCKS = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}


def network(ops, step, parameters, x):
    """Projections of views, `[2n, P]`."""
    kernels = iter([name for name in step.variables if "conv2d" in name])
    norms = iter([name[: -len("/gamma")] for name in step.variables if name.endswith("/gamma")])
    dense = [name for name in step.variables if "/dense/kernel" in name]

    def conv(x, stride=1):
        return ops.conv(x, parameters[next(kernels)], stride)

    def norm(x):
        name = next(norms)
        return ops.norm(x, parameters[name + "/gamma"], parameters.get(name + "/beta"), name)

    def block(x, stride, project):
        shortcut = norm(conv(x, stride)) if project else x
        if step.resnet_depth >= 50:
            y = ops.relu(norm(conv(x)))
            y = ops.relu(norm(conv(y, stride)))
        else:
            y = ops.relu(norm(conv(x, stride)))
        return ops.relu(ops.add(norm(conv(y)), shortcut))

    if step.image_size <= 32:
        x = ops.relu(norm(conv(x, step.stem_stride)))
    else:
        x = ops.max_pool(ops.relu(norm(conv(x, 2))))
    for group, count in enumerate(BLOCKS[step.resnet_depth]):
        for unit in range(count):
            x = block(x, 2 if unit == 0 and group > 0 else 1, unit == 0)
    x = ops.global_mean(x)
    for i, name in enumerate(dense):
        x = norm(ops.matmul(x, parameters[name]))
        if i + 1 < len(dense):
            x = ops.relu(x)
    return x


def race(begin, step, steps, run, compile_seconds=None, device_memory=lambda: None):
    """Runs step 0, then times `steps` more; `run(rate)` gives the loss before the update, `device_memory()` the most bytes of a GPU
    in use. Prints the figures as one JSON line."""
    before = time.time()
    losses = [run(step.rates[0])]
    first_step, first = time.time() - begin, time.time() - before
    seconds, cpu = [], time.process_time()
    for i in range(1, steps + 1):
        before = time.time()
        losses.append(run(step.rates[min(i, len(step.rates) - 1)]))
        seconds.append(time.time() - before)
    cpu = time.process_time() - cpu
    median = sorted(seconds)[len(seconds) // 2]
    json.dump(
        {
            "images_per_second": step.batch / median,
            "step_seconds": {"min": min(seconds), "median": median, "max": max(seconds)},
            # Where compilation is part of the first step, it is what that step took longer.
            "compile_seconds": first - median if compile_seconds is None else compile_seconds,
            "first_step_seconds": first_step,
            "losses": losses,
            "peak_device_memory_bytes": device_memory(),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "cpu_seconds_per_image": cpu / (step.batch * steps),
        },
        sys.stdout,
    )
    print()
