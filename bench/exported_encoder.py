"""Runs exported encoders elsewhere on real images and compares their features (pip install jax torch torchvision timm safetensors).

    simclr export RUN DIR/stablehlo --format stablehlo --batch 8
    simclr export RUN DIR/torchvision --format torchvision
    simclr export RUN DIR/timm --format timm
    python bench/exported_encoder.py DIR IMAGES

IMAGES is a TFRecord file with the feature `image` (JPEG or PNG). Prints the relative difference of features, JAX's as the base.
"""

import importlib.util
import io
import json
import pathlib
import struct
import sys

import numpy as np
from PIL import Image


def images(path, count, size):
    """The first images of a record file, the middle square resized, in [0, 1]."""
    found = []
    with open(path, "rb") as file:
        while len(found) < count:
            (length,) = struct.unpack("<Q4x", file.read(12))
            record = file.read(length)
            file.read(4)
            start = min(i for i in (record.find(b"\xff\xd8\xff"), record.find(b"\x89PNG")) if i >= 0)
            image = Image.open(io.BytesIO(record[start:])).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.BICUBIC)
            found.append(np.asarray(image, np.float32) / 255)
    return np.stack(found)


def with_jax(folder, batch):
    """The outputs of encoder.mlir by name."""
    import jax
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir

    about = json.loads((folder / "encoder.json").read_text())
    with mlir.make_ir_context():
        module = ir.Module.parse((folder / "encoder.mlir").read_text())
        code = mlir.module_to_bytecode(module)
    device = jax.devices("cpu")[0]
    devices = xla_client.DeviceList((device,))
    program = device.client.compile_and_load(code, devices, xla_client.CompileOptions())
    arguments = []
    if len(about["inputs"]) > 1:
        from safetensors.numpy import load_file

        weights = load_file(folder / "weights.safetensors")
        arguments = [weights[entry["name"]] for entry in about["inputs"][:-1]]
    arguments = [jax.device_put(a, device) for a in [*arguments, batch]]
    results = program.execute_sharded(arguments).disassemble_into_single_device_arrays()
    return {entry["name"]: np.asarray(result[0]) for entry, result in zip(about["outputs"], results)}


def with_torch(folder, batch):
    """The output of the network that load.py builds."""
    import torch

    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.no_grad():
        return module.load()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())).numpy()


def main(folder, path):
    folder = pathlib.Path(folder)
    about = json.loads((folder / "stablehlo/encoder.json").read_text())
    *_, shape = (entry["shape"] for entry in about["inputs"])
    batch = images(path, shape[0], shape[1])
    base = with_jax(folder / "stablehlo", batch)
    print("JAX ran", ", ".join(f"{name} {list(value.shape)}" for name, value in base.items()))
    for library in ["torchvision", "timm"]:
        found = with_torch(folder / library, batch)
        expected = base["logits_sup" if found.shape[1:] == base.get("logits_sup", found[:, :0]).shape[1:] else "final_avg_pool"]
        difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        largest = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"{library}: {list(found.shape)}, relative difference {difference:.2e}, of the largest element {largest:.2e}")
        assert difference < 1e-4


if __name__ == "__main__":
    main(*sys.argv[1:])
