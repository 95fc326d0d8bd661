"""The SimCLR step in plain JAX, for comparison: ResNet-18 with the CIFAR stem, 32 images as 64 views, momentum.

Prints one JSON line. Views are random and already on the device (ours augments on the device in every step as well).
"""

import json
import resource
import sys
import time

START = time.time()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

BATCH = 32
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 6
GROUPS = [64, 128, 256, 512]
rng = np.random.default_rng(0)


def kernel(size, inputs, outputs):
    return jnp.asarray(rng.normal(0, (1 / (size * size * inputs)) ** 0.5, (size, size, inputs, outputs)), jnp.float32)


def norm(channels, gamma=1.0):
    return {"gamma": jnp.full((channels,), gamma), "beta": jnp.zeros((channels,))}


def block(inputs, outputs, project):
    p = {"a": kernel(3, inputs, outputs), "an": norm(outputs), "b": kernel(3, outputs, outputs), "bn": norm(outputs, 0.0)}
    if project:
        p |= {"s": kernel(1, inputs, outputs), "sn": norm(outputs)}
    return p


def parameters():
    p = {"stem": kernel(3, 3, 64), "stem_n": norm(64), "blocks": []}
    inputs = 64
    for width in GROUPS:
        for unit in range(2):
            p["blocks"].append(block(inputs, width, unit == 0))
            inputs = width
    dense = lambda i, o: jnp.asarray(rng.normal(0, 0.01, (i, o)), jnp.float32)  # noqa: E731
    p["head"] = [dense(512, 512), norm(512), dense(512, 128), norm(128)]
    return p


def conv(x, w, stride=1):
    k = w.shape[0]
    low = (k - 1) // 2
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), [(low, k - 1 - low)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def batch_norm(x, p):
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    variance = ((x - mean) ** 2).mean(axes)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p["gamma"] + p["beta"]


def forward(p, x):
    x = jax.nn.relu(batch_norm(conv(x, p["stem"]), p["stem_n"]))
    for i, b in enumerate(p["blocks"]):
        stride = 2 if i in (2, 4, 6) else 1
        shortcut = batch_norm(conv(x, b["s"], stride), b["sn"]) if "s" in b else x
        y = jax.nn.relu(batch_norm(conv(x, b["a"], stride), b["an"]))
        y = batch_norm(conv(y, b["b"]), b["bn"])
        x = jax.nn.relu(y + shortcut)
    h = x.mean((1, 2))
    w0, n0, w1, n1 = p["head"]
    return batch_norm(jax.nn.relu(batch_norm(h @ w0, n0)) @ w1, n1)


def loss(p, views):
    z = forward(p, views)
    z = z * jax.lax.rsqrt(jnp.maximum((z * z).sum(1, keepdims=True), 1e-12))
    a, b = z[:BATCH], z[BATCH:]
    own = jnp.eye(BATCH)
    ab, ba = a @ b.T / 0.5, b @ a.T / 0.5
    aa, bb = a @ a.T / 0.5 - own * 1e9, b @ b.T / 0.5 - own * 1e9
    ce = lambda cross, same: (jax.nn.logsumexp(jnp.concatenate([cross, same], 1), 1) - (cross * own).sum(1)).mean()  # noqa: E731
    return ce(ab, aa) + ce(ba, bb)


def plain_step(p, v, views):
    value, g = jax.value_and_grad(loss)(p, views)
    v = jax.tree.map(lambda v, g, w: 0.9 * v + g + 1e-4 * w, v, g, p)
    p = jax.tree.map(lambda w, g, v: w - 0.01 * (g + 0.9 * v), p, g, v)
    return p, v, value


step = jax.jit(plain_step, donate_argnums=(0, 1))
p = parameters()
v = jax.tree.map(jnp.zeros_like, p)
views = jnp.asarray(rng.random((2 * BATCH, 32, 32, 3)), jnp.float32)
before = time.time()
compiled = step.lower(p, v, views).compile()
compile_seconds = time.time() - before
seconds, losses = [], []
first = None
for _ in range(STEPS + 1):
    before = time.time()
    p, v, value = compiled(p, v, views)
    losses.append(float(value))
    if first is None:
        first = time.time() - START
        cpu = time.process_time()
    else:
        seconds.append(time.time() - before)
cpu = time.process_time() - cpu
seconds.sort()
median = seconds[len(seconds) // 2]
print(json.dumps({
    "images_per_second": BATCH / median, "compile_seconds": compile_seconds, "first_step_seconds": first, "losses": losses,
    "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "cpu_seconds_per_image": cpu / (BATCH * STEPS),
}))
