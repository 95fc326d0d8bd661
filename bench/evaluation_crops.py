"""What evaluation sees, ours against TensorFlow's, on the pictures of a split. By hand:

    pip install tensorflow-cpu
    cargo run --release --example evaluation_crops -- imagenet2012 train DATA_DIR 224 /tmp/crops.bin
    python bench/evaluation_crops.py /tmp/crops.bin 224 DATA_DIR/imagenet2012/*/imagenet2012-train.tfrecord-*

Prints the mean and the largest difference in grey levels for both of TensorFlow's DCTs. Of crops that were made with `antialiased`, which
has to be the last argument of both, also that to Pillow (`pip install pillow`).
"""
import sys

import numpy as np
import tensorflow as tf

antialiased = sys.argv[-1] == "antialiased"
crops, size, files = sys.argv[1], int(sys.argv[2]), sorted(sys.argv[3 : -1 if antialiased else None])
ours = np.fromfile(crops, np.uint8).reshape(-1, size, size, 3)
features = {"image": tf.io.FixedLenFeature([], tf.string)}


def pillow(image):
    """The same by Pillow, which decodes as TensorFlow's accurate DCT does."""
    from PIL import Image

    height, width = image.shape[:2]
    side = int(np.rint(np.float32(0.875) * np.float32(min(height, width))))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)


def theirs(encoded, dct):
    """Centre crop of 87.5 % of the shorter side, bicubic, clipped."""
    if encoded[:2] == b"\xff\xd8":
        accurate = "INTEGER_ACCURATE" if dct == "Pillow" else dct
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method=accurate)
    else:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    if dct == "Pillow":
        return pillow(image.numpy())
    image = tf.image.convert_image_dtype(image, tf.float32)
    height, width = image.shape[:2]
    side = int(np.rint(np.float32(0.875) * np.float32(min(height, width))))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = image[top : top + side, left : left + side]
    image = tf.image.resize(image, [size, size], "bicubic", antialias=antialiased)
    return np.rint(np.clip(image.numpy(), 0, 1) * 255).astype(np.int16)


for dct in ["INTEGER_ACCURATE", "INTEGER_FAST", *(["Pillow"] if antialiased else [])]:
    means, most, grey = [], [], 0
    for row, record in enumerate(tf.data.TFRecordDataset(files)):
        encoded = tf.io.parse_single_example(record, features)["image"].numpy()
        difference = np.abs(theirs(encoded, dct) - ours[row].astype(np.int16))
        means.append(difference.mean())
        most.append(difference.max())
    print(
        f"{dct}: {len(means)} pictures, mean difference {np.mean(means):.3f} grey levels "
        f"(worst picture {max(means):.3f}), largest {max(most)}, median largest {int(np.median(most))}"
    )
