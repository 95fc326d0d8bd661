"""Whether all sides of the race did the same work: their losses, step by step from the same parameters, agree."""

# Of a loss. Rounding parts them by less in ten steps, also in bf16 (docs/benchmarks.md).
TOLERANCE = 1e-3


def difference(losses):
    """Where two sides differ by more than the tolerance, in words; None where they agree. `losses[side]` is a list, a loss per step.

    >>> difference({"simclr": [6.0, 4.5], "jax": [6.0, 4.501], "torch": [6.001, 4.5]})
    >>> difference({"simclr": [6.0, 4.5], "jax": [6.0, 4.5], "torch": [6.0, 4.55]})
    'loss 1 is 4.5000 in simclr and 4.5500 in torch, which differ by more than 0.001 of it: this is not the same work'
    >>> difference({"simclr": [6.0, float("nan")], "jax": [6.0, 4.5]})
    'loss 1 is nan in simclr and 4.5000 in jax, which differ by more than 0.001 of it: this is not the same work'
    >>> difference({"simclr": [6.0]})
    """
    (first, own), *others = losses.items()
    for side, other in others:
        for i, (a, b) in enumerate(zip(own, other)):
            # Also where one of them is no number.
            if not abs(a - b) <= TOLERANCE * abs(a):
                return (
                    f"loss {i} is {a:.4f} in {first} and {b:.4f} in {side}, which differ by more than {TOLERANCE} of it: "
                    "this is not the same work"
                )
    return None
