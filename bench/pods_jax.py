"""The SimCLR step of ResNet-50 in plain JAX, compiled for a TPU slice that is not there. Prints one JSON line.

    python bench/pods_jax.py TOPOLOGY [IMAGES_PER_CORE]      # such as v3:8x8 32

The work of `simclr compile` with momentum and without colour and blur (see bench/pods_race.sh): bf16 activations, f32 parameters,
batch statistics over all cores, NT-Xent over the whole batch. Needs jax, and libtpu where `TPU_LIBRARY_PATH` or pip put it.
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_LOG_DIR", "disabled")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P  # noqa: E402

TOPOLOGY = sys.argv[1]
N = int(sys.argv[2]) if len(sys.argv) > 2 else 32
BLOCKS, WIDTHS = [3, 4, 6, 3], [64, 128, 256, 512]
SIDE, TEMPERATURE = 224, 0.1


def kernel(size, inputs, outputs):
    return jax.ShapeDtypeStruct((size, size, inputs, outputs), jnp.float32)


def dense(inputs, outputs):
    return jax.ShapeDtypeStruct((inputs, outputs), jnp.float32)


def norm(channels):
    return {"gamma": jax.ShapeDtypeStruct((channels,), jnp.float32), "beta": jax.ShapeDtypeStruct((channels,), jnp.float32)}


def parameters():
    p = {"stem": kernel(7, 3, 64), "stem_n": norm(64), "blocks": []}
    inputs = 64
    for width, blocks in zip(WIDTHS, BLOCKS):
        for unit in range(blocks):
            b = {"a": kernel(1, inputs, width), "an": norm(width), "b": kernel(3, width, width), "bn": norm(width),
                 "c": kernel(1, width, 4 * width), "cn": norm(4 * width)}
            if unit == 0:
                b |= {"s": kernel(1, inputs, 4 * width), "sn": norm(4 * width)}
            p["blocks"].append(b)
            inputs = 4 * width
    p["head"] = [dense(2048, 2048), norm(2048), dense(2048, 2048), norm(2048), dense(2048, 128), norm(128)]
    return p


def conv(x, w, stride=1):
    k = w.shape[0]
    low = (k - 1) // 2
    return jax.lax.conv_general_dilated(
        x, w.astype(jnp.bfloat16), (stride, stride), [(low, k - 1 - low)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def batch_norm(x, p):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean = jax.lax.pmean(wide.mean(axes), "cores")
    variance = jax.lax.pmean((wide * wide).mean(axes), "cores") - mean * mean
    return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5) * p["gamma"] + p["beta"]).astype(jnp.bfloat16)


def forward(p, x):
    x = jax.nn.relu(batch_norm(conv(x, p["stem"], 2), p["stem_n"]))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    unit = 0
    for group, blocks in enumerate(BLOCKS):
        for i in range(blocks):
            b = p["blocks"][unit]
            stride = 2 if group > 0 and i == 0 else 1
            shortcut = batch_norm(conv(x, b["s"], stride), b["sn"]) if "s" in b else x
            y = jax.nn.relu(batch_norm(conv(x, b["a"]), b["an"]))
            y = jax.nn.relu(batch_norm(conv(y, b["b"], stride), b["bn"]))
            y = batch_norm(conv(y, b["c"]), b["cn"])
            x = jax.nn.relu(y + shortcut)
            unit += 1
    h = x.mean((1, 2))
    w0, n0, w1, n1, w2, n2 = p["head"]
    bf = jnp.bfloat16
    h = jax.nn.relu(batch_norm(h @ w0.astype(bf), n0))
    h = jax.nn.relu(batch_norm(h @ w1.astype(bf), n1))
    return batch_norm(h @ w2.astype(bf), n2).astype(jnp.float32)


def loss(p, views):
    z = forward(p, views)
    z = z * jax.lax.rsqrt(jnp.maximum((z * z).sum(1, keepdims=True), 1e-12))
    a, b = z[:N], z[N:]
    all_a = jax.lax.all_gather(a, "cores", tiled=True)
    all_b = jax.lax.all_gather(b, "cores", tiled=True)
    own = jax.nn.one_hot(jnp.arange(N) + jax.lax.axis_index("cores") * N, all_a.shape[0])
    ab, ba = a @ all_b.T / TEMPERATURE, b @ all_a.T / TEMPERATURE
    aa, bb = a @ all_a.T / TEMPERATURE - own * 1e9, b @ all_b.T / TEMPERATURE - own * 1e9
    ce = lambda cross, same: (jax.nn.logsumexp(jnp.concatenate([cross, same], 1), 1) - (cross * own).sum(1)).mean()  # noqa: E731
    return ce(ab, aa) + ce(ba, bb)


def step(p, v, views):
    views = views.astype(jnp.bfloat16) / 255
    value, g = jax.value_and_grad(loss)(p, views)
    g = jax.lax.pmean(g, "cores")
    v = jax.tree.map(lambda v, g, w: 0.9 * v + g + 1e-4 * w, v, g, p)
    p = jax.tree.map(lambda w, g, v: w - 0.01 * (g + 0.9 * v), p, g, v)
    return p, v, jax.lax.pmean(value, "cores")


topology = topologies.get_topology_desc(topology_name=TOPOLOGY, platform="tpu")
devices = np.array(topology.devices)
mesh = Mesh(devices, ("cores",))
everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("cores"))
sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("cores")), out_specs=(P(), P(), P()), check_vma=False)
run = jax.jit(sharded, in_shardings=(everywhere, everywhere, split), donate_argnums=(0, 1))
p = parameters()
views = jax.ShapeDtypeStruct((2 * N * len(devices), SIDE, SIDE, 3), jnp.uint8)
lowered = run.lower(p, p, views)
cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.time()
compiled = lowered.compile()
after = resource.getrusage(resource.RUSAGE_SELF)
costs = compiled.cost_analysis()
memory = compiled.memory_analysis()
with open(os.environ.get("JAX_DUMP", "/dev/null"), "w") as out:
    out.write(compiled.as_text())
print(json.dumps({
    "target": TOPOLOGY,
    "devices": len(devices),
    "flops": costs.get("flops"),
    "bytes_accessed": costs.get("bytes accessed"),
    "optimal_seconds": costs.get("optimal_seconds"),
    "memory": {
        "arguments": memory.argument_size_in_bytes, "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes, "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    },
    "compile_seconds": time.time() - wall,
    "compile_cpu_seconds": after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime,
}))
