"""The dumped step in plain JAX (jit, donated): `jax_step.py DUMP STEPS`."""

import sys
import time

from same_step import Step, network, race, started

begin = started()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

step = Step(sys.argv[1])
# Activations; parameters, statistics and the loss are f32.
activations = jnp.bfloat16 if step.precision == "bf16" else jnp.float32


class Ops:
    def __init__(self, moving):
        self.moving, self.moved = moving, {}

    def conv(self, x, w, stride):
        low = (w.shape[0] - 1) // 2
        padding = [(low, w.shape[0] - 1 - low)] * 2
        x, w = x.astype(activations), w.astype(activations)
        return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def norm(self, x, gamma, beta, name):
        axes, x = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
        mean, variance = x.mean(axes), x.var(axes)
        for key, value in (("/moving_mean", mean), ("/moving_variance", variance)):
            old = self.moving[name + key]
            self.moved[name + key] = old - (old - jax.lax.stop_gradient(value)) * (1 - step.batch_norm_decay)
        y = (x - mean) * (jax.lax.rsqrt(variance + 1e-5) * gamma)
        return (y if beta is None else y + beta).astype(activations)

    def relu(self, x):
        return jax.nn.relu(x)

    def add(self, x, y):
        return x + y

    def max_pool(self, x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    def global_mean(self, x):
        return x.mean((1, 2))

    def matmul(self, x, w):
        return x.astype(activations) @ w.astype(activations)


def loss(parameters, moving, views):
    ops = Ops(moving)
    z = network(ops, step, parameters, views).astype(jnp.float32)
    z = z * jax.lax.rsqrt(jnp.maximum((z * z).sum(1, keepdims=True), 1e-12))
    similarity = z @ z.T / step.temperature - jnp.eye(len(z)) * 1e9
    positive = jnp.roll(jnp.eye(len(z)), step.batch, 1)
    value = jax.nn.logsumexp(similarity, 1).sum() - (similarity * positive).sum()
    return value / step.batch, ops.moved


def update(parameters, moving, slots, views, rate):
    (value, moving), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, moving, views)
    for name, gradient in gradients.items():
        if step.decayed(name):
            gradient = gradient + step.weight_decay * parameters[name]
        slots[name] = step.momentum * slots[name] + gradient
        parameters[name] = parameters[name] - rate * (gradient + step.momentum * slots[name])
    return parameters, moving, slots, value


parameters = {name: jnp.asarray(value) for name, value in step.parameters().items()}
moving = {name: jnp.asarray(value) for name, value in step.arrays.items() if "/moving_" in name}
views = jnp.asarray(step.arrays["views"])
state = parameters, moving, jax.tree.map(jnp.zeros_like, parameters)
before = time.time()
compiled = jax.jit(update, donate_argnums=(0, 1, 2)).lower(*state, views, 0.0).compile()
compile_seconds = time.time() - before


def run(rate):
    global state
    *state, value = compiled(*state, views, rate)
    return float(value)


def device_memory():
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


race(begin, step, int(sys.argv[2]), run, compile_seconds, device_memory)
