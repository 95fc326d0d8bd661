"""What `simclr data pack` writes, opened by TensorFlow Datasets itself. By hand:

    pip install tensorflow-cpu tensorflow-datasets
    simclr data pack IMAGES OUT --name mine
    python bench/tfds_opens_pack.py IMAGES OUT/mine/1.0.0        # IMAGES/CLASS/FILE, or IMAGES/SPLIT/CLASS/FILE

Every split's number of examples, and every example's class, name, size and pixels are those of the folder.
"""
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

images, packed = pathlib.Path(sys.argv[1]), sys.argv[2]
builder = tfds.builder_from_directory(packed)
print(builder.info.features)
classes = builder.info.features["label"].names
for split, info in builder.info.splits.items():
    folder = images / split if (images / split).is_dir() else images
    expected = {str(file.relative_to(folder)): file for file in folder.glob("*/*")}
    assert info.num_examples == len(expected), (split, info.num_examples, len(expected))
    for example in tfds.as_numpy(builder.as_dataset(split=split)):
        name = example["file_name"].decode()
        file = expected.pop(name)
        assert classes[example["label"]] == name.split("/")[0], name
        image = tf.io.decode_image(file.read_bytes(), channels=3, expand_animations=False)
        assert np.array_equal(example["image"], image.numpy()), name
    assert not expected, expected
    print(f"{split}: {info.num_examples} examples in {info.num_shards} shards are those of the folder")
