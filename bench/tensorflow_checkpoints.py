"""Checks our reading and writing of TensorFlow's checkpoints against TensorFlow itself (pip install tensorflow-cpu).

    python bench/tensorflow_checkpoints.py make DIR [NETWORK]   # writes checkpoints with TensorFlow: TF1 names (one and several
                                                                # data files) and a TF2 object graph, random values
    python bench/tensorflow_checkpoints.py compare PREFIX       # every tensor as TensorFlow and as `simclr inspect` read it
    python bench/tensorflow_checkpoints.py restore PREFIX       # a TF2 checkpoint of ours restored into objects, all values equal

NETWORK is a key of tests/golden/variables.json (resnet50_1x by default). Needs target/release/simclr, or SIMCLR.
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../tests/golden")
SIMCLR = os.environ.get("SIMCLR", os.path.join(HERE, "../target/release/simclr"))


def golden(name, network):
    with open(os.path.join(GOLDEN, name)) as file:
        return json.load(file)[network]


def value(rng, name, shape):
    if name.endswith("moving_variance") or name.endswith("gamma"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.05 if name.endswith("kernel") else 0.1
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def make(folder, network="resnet50_1x"):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(1)
    entry = golden("variables.json", network)
    values = {name: value(rng, name, shape) for name, shape, _ in entry["variables"]}
    slots = {f"{name}/Momentum": value(rng, name, shape) for name, shape, trained in entry["variables"] if trained}
    with tf.Graph().as_default():
        variables = []
        for number, (name, content) in enumerate({**values, **slots}.items()):
            with tf.device(f"/cpu:{number % 2}"):  # a data file for each device when sharded
                variables.append(tf.compat.v1.get_variable(name, initializer=content, use_resource=False))
        step = tf.compat.v1.get_variable("global_step", initializer=np.int64(31_250), use_resource=False)
        devices = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
        with tf.compat.v1.Session(config=devices) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for name, sharded in [("model.ckpt", False), ("sharded.ckpt", True)]:
                saver = tf.compat.v1.train.Saver([*variables, step], sharded=sharded)
                print(saver.save(session, os.path.join(folder, name), global_step=31_250))
    try:
        paths = golden("tf2_paths.json", network)["paths"]
    except KeyError:
        return
    root = objects({path: values[name] for name, path in paths.items() if name in values})
    checkpoint = tf.train.Checkpoint(model=root, global_step=tf.Variable(np.int64(31_250)))
    print(checkpoint.save(os.path.join(folder, "tf2", "ckpt")))


def objects(values):
    """Trackable objects whose attributes make these paths."""
    root = tf.Module()
    for path, content in values.items():
        at = root
        *above, last = path.split("/")
        for name in above:
            if not hasattr(at, name):
                setattr(at, name, tf.Module())
            at = getattr(at, name)
        setattr(at, last, tf.Variable(content))
    return root


def inspect(prefix):
    out = subprocess.run([SIMCLR, "inspect", prefix, "--json"], check=True, capture_output=True, text=True)
    return {array["name"]: array for array in json.loads(out.stdout)["arrays"]}


def compare(prefix):
    theirs = tf.train.load_checkpoint(prefix)
    ours = inspect(prefix)
    shapes = theirs.get_variable_to_shape_map()
    assert set(shapes) == set(ours), set(shapes) ^ set(ours)
    for name, shape in shapes.items():
        tensor = theirs.get_tensor(name)
        content = tensor if isinstance(tensor, bytes) else np.asarray(tensor).tobytes()
        assert list(shape) == ours[name]["shape"], name
        assert hashlib.sha256(content).hexdigest() == ours[name]["sha256"], name
    print(f"{prefix}: {len(shapes)} tensors, the same names, shapes and bytes")


def restore(prefix):
    reader = tf.train.load_checkpoint(prefix)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("model/") and n.endswith(suffix)]
    names = [n for n in names if "/.OPTIMIZER_SLOT/" not in n]
    root = objects({n[len("model/") : -len(suffix)]: np.zeros(reader.get_variable_to_shape_map()[n], np.float32) for n in names})
    step = tf.Variable(np.int64(-1))
    status = tf.train.Checkpoint(model=root, global_step=step).restore(prefix)
    status.assert_existing_objects_matched()
    for name in names:
        at = root
        for part in name[len("model/") : -len(suffix)].split("/"):
            at = getattr(at, part)
        assert np.array_equal(at.numpy(), reader.get_tensor(name)), name
    print(f"{prefix}: {len(names)} variables and step {step.numpy()} restored into objects")


if __name__ == "__main__":
    {"make": make, "compare": compare, "restore": restore}[sys.argv[1]](*sys.argv[2:])
