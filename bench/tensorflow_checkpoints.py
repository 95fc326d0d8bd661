"""Checks our reading and writing of TensorFlow's checkpoints against TensorFlow itself (pip install tensorflow-cpu).

    python bench/tensorflow_checkpoints.py make DIR [NETWORK]      # writes checkpoints with TensorFlow: TF1 names (one and several
                                                                   # data files) and a TF2 object graph, random values
    python bench/tensorflow_checkpoints.py compare PREFIX          # every tensor as TensorFlow and as `simclr inspect` read it
    python bench/tensorflow_checkpoints.py restore PREFIX NETWORK  # a checkpoint of ours restored under the original's names
    python bench/tensorflow_checkpoints.py evaluate DIR DATA_DIR   # a ResNet-50 with the full list, written by TensorFlow in both
                                                                   # forms, imported and evaluated: features and top-1 against a
                                                                   # forward pass in TensorFlow; DATA_DIR has imagenet2012/*/

NETWORK is a key of tests/golden/variables.json (resnet50_1x by default). Needs target/release/simclr (or SIMCLR) and, to evaluate,
`cargo build --release --example evaluation_crops`.
"""

import glob
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
    rng = np.random.default_rng(1)
    entry = golden("variables.json", network)
    values = {name: value(rng, name, shape) for name, shape, _ in entry["variables"]}
    trained = [name for name, _, trained in entry["variables"] if trained]
    save(folder, network, values, {f"{name}/Momentum": value(rng, name, values[name].shape) for name in trained})


def save(folder, network, values, slots):
    """Writes variables and slots with TensorFlow, in both generations' forms; gives the prefixes."""
    os.makedirs(folder, exist_ok=True)
    prefixes = []
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
                prefixes.append(saver.save(session, os.path.join(folder, name), global_step=31_250))
                print(prefixes[-1])
    try:
        paths = golden("tf2_paths.json", network)["paths"]
    except KeyError:
        return prefixes
    root = objects({path: values[name] for name, path in paths.items() if name in values})
    checkpoint = tf.train.Checkpoint(model=root, global_step=tf.Variable(np.int64(31_250)))
    prefixes.append(checkpoint.save(os.path.join(folder, "tf2", "ckpt")))
    print(prefixes[-1])
    return prefixes


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


def restore(prefix, network):
    """Restores under the names of the original alone, as its code does."""
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    paths = golden("tf2_paths.json", network)["paths"]
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
        # Of what has no classifier, none is asked for.
        keys = {path: f"model/{path}/.ATTRIBUTES/VARIABLE_VALUE" for path in paths.values()}
        keys = {path: key for path, key in keys.items() if key in shapes or "supervised_head" not in path}
        root = objects({path: np.zeros(shapes[key], np.float32) for path, key in keys.items()})
        step = tf.Variable(np.int64(-1))
        status = tf.train.Checkpoint(model=root, global_step=step).restore(prefix)
        status.assert_existing_objects_matched()
        for path, key in keys.items():
            at = root
            for part in path.split("/"):
                at = getattr(at, part)
            assert np.array_equal(at.numpy(), reader.get_tensor(key)), path
        print(f"{prefix}: {len(keys)} variables and step {step.numpy()} restored into objects")
        return
    rows = golden("variables.json", network)["variables"]
    names = [name for name, _, _ in rows] + [f"{name}/Momentum" for name, _, trained in rows if trained]
    with tf.Graph().as_default():
        variables = {name: tf.compat.v1.get_variable(name, shapes[name], use_resource=False) for name in names}
        step = tf.compat.v1.get_variable("global_step", [], tf.int64, use_resource=False)
        with tf.compat.v1.Session() as session:
            tf.compat.v1.train.Saver([*variables.values(), step]).restore(session, prefix)
            for name, found in session.run(variables).items():
                assert np.array_equal(found, reader.get_tensor(name)), name
            print(f"{prefix}: {len(rows)} variables, their slots and step {session.run(step)} restored by name")


def forward(values, images, calibrate=False):
    """Features of the plain ResNet-50 of the original in its evaluation, from the variables of its first generation. With
    `calibrate` every normalisation takes its moving statistics from these images first."""
    numbers = {"conv2d": 0, "batch_normalization": 0}

    def named(layer):
        number = numbers[layer]
        numbers[layer] += 1
        return f"base_model/{layer}{f'_{number}' if number else ''}"

    def convolution(x, stride):
        kernel = values[f"{named('conv2d')}/kernel"]
        before, both = (kernel.shape[0] - 1) // 2, kernel.shape[0] - 1
        sides = [before, both - before]
        if stride > 1:
            x = tf.pad(x, [[0, 0], sides, sides, [0, 0]])
        return tf.nn.conv2d(x, kernel, stride, "VALID" if stride > 1 else "SAME")

    def normalised(x):
        name = named("batch_normalization")
        if calibrate:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            values[f"{name}/moving_mean"], values[f"{name}/moving_variance"] = mean.numpy(), variance.numpy()
        parts = [values[f"{name}/{part}"] for part in ["moving_mean", "moving_variance", "beta", "gamma"]]
        return tf.nn.batch_normalization(x, *parts, 1e-5)

    x = tf.nn.relu(normalised(convolution(images, 2)))
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for group, blocks in enumerate([3, 4, 6, 3]):
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            shortcut = normalised(convolution(x, stride)) if block == 0 else x
            y = tf.nn.relu(normalised(convolution(x, 1)))
            y = tf.nn.relu(normalised(convolution(y, stride)))
            x = tf.nn.relu(normalised(convolution(y, 1)) + shortcut)
    return tf.reduce_mean(x, [1, 2]).numpy()


def features(values, images):
    return np.concatenate([forward(values, images[at : at + 20]) for at in range(0, len(images), 20)])


def right(logits, labels, best):
    """Percent of the rows whose label is among the best."""
    return 100 * np.mean([label in row for label, row in zip(labels, np.argsort(-logits, 1)[:, :best])])


def head(rng, found, labels, classes=1000):
    """A classifier that knows every second image (ridge regression)."""
    known, targets = found[::2], np.eye(classes)[labels[::2]]
    mean = known.mean(0)
    centred = known - mean
    kernel = centred.T @ np.linalg.solve(centred @ centred.T + 1e-3 * np.trace(centred @ centred.T) * np.eye(len(known)), targets)
    # The rest is not guessed alike: a little of anything.
    kernel += 0.1 * kernel.std() * rng.standard_normal(kernel.shape)
    return {"kernel": kernel.astype(np.float32), "bias": (-mean @ kernel).astype(np.float32)}


def theirs(encoded, size):
    """TensorFlow's own decoding, centre crop of 87.5 % and bicubic resizing, as the original has them."""
    if encoded[:2] == b"\xff\xd8":
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    else:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.image.convert_image_dtype(image, tf.float32)
    height, width = image.shape[:2]
    side = int(np.rint(np.float32(0.875) * np.float32(min(height, width))))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = tf.image.resize(image[top : top + side, left : left + side], [size, size], "bicubic")
    return np.clip(image.numpy(), 0, 1)


def simclr(*arguments):
    return subprocess.run([SIMCLR, *arguments], check=True, capture_output=True, text=True).stdout


def evaluate(folder, data, size=224):
    os.makedirs(folder, exist_ok=True)
    files = sorted(glob.glob(os.path.join(data, "imagenet2012/*/imagenet2012-train.tfrecord-*")))
    pixels = os.path.join(folder, "crops.bin")
    example = os.path.join(HERE, "../target/release/examples/evaluation_crops")
    subprocess.run([example, "imagenet2012", "train", data, str(size), pixels], check=True)
    crops = np.fromfile(pixels, np.uint8).reshape(-1, size, size, 3).astype(np.float32) / 255
    parse = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    records = [tf.io.parse_single_example(record, parse) for record in tf.data.TFRecordDataset(files)]
    labels = np.array([record["label"].numpy() for record in records])
    assert len(labels) == len(crops)

    # Random kernels as He has them; statistics such that all layers see numbers of a common size.
    rng = np.random.default_rng(1)
    entry = golden("variables.json", "resnet50_1x")
    values = {name: value(rng, name, shape) for name, shape, _ in entry["variables"]}
    for name in values:
        if name.startswith("base_model") and name.endswith("kernel"):
            shape = values[name].shape
            values[name] = (np.sqrt(2 / np.prod(shape[:3])) * rng.standard_normal(shape)).astype(np.float32)
    forward(values, crops[:64], calibrate=True)
    expected = features(values, crops)
    for part, content in head(rng, expected, labels).items():
        values[f"head_supervised/linear_layer/dense/{part}"] = content
    kernel, bias = (values[f"head_supervised/linear_layer/dense/{part}"] for part in ["kernel", "bias"])
    moving = ("moving_mean", "moving_variance")
    slots = {f"{name}/Momentum": value(rng, name, values[name].shape) for name in values if not name.endswith(moving)}
    prefixes = save(os.path.join(folder, "theirs"), "resnet50_1x", values, slots)
    print(f"{len(values)} variables, {len(slots)} slots, {len(labels)} photographs")
    logits = expected @ kernel + bias
    print(f"TensorFlow on our crops: top-1 {right(logits, labels, 1):.2f} %, top-5 {right(logits, labels, 5):.2f} %")
    own = np.stack([theirs(record["image"].numpy(), size) for record in records])
    decoded = features(values, own) @ kernel + bias
    print(f"TensorFlow on its own: top-1 {right(decoded, labels, 1):.2f} %, top-5 {right(decoded, labels, 5):.2f} %")
    for number, prefix in enumerate(prefixes):
        run, file = os.path.join(folder, f"imported{number}"), os.path.join(folder, f"features{number}.npy")
        # The first generation's code resizes in its own way, which TensorFlow of today has no more.
        simclr("import", prefix, run, "dataset=imagenet2012", "resize_kernel=v2_half_pixel")
        split = [f"data_dir={data}", "eval_split=train", "runtime.platform=cpu", "runtime.devices=1"]
        judged = json.loads(simclr("evaluate", run, "--head-only", "--json", *split))["figures"]
        simclr("embed", run, *files, "-o", file, "--set", "runtime.platform=cpu", "--set", "runtime.devices=1")
        found = np.load(file)
        difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        largest = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"simclr, {os.path.basename(prefix)}: top-1 {100 * judged['top_1']:.2f} %, top-5 {100 * judged['top_5']:.2f} %; features {list(found.shape)} differ by "
              f"{difference:.2e} relative, {largest:.2e} of the largest")
        assert difference < 1e-4 and largest < 1e-4


if __name__ == "__main__":
    {"make": make, "compare": compare, "restore": restore, "evaluate": evaluate}[sys.argv[1]](*sys.argv[2:])
