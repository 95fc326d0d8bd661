"""Images per second of the host's part of the input, on the same TFRecords: one side for each call.

    pip install tensorflow-cpu torch torchvision pillow
    bench/input.sh DATA_DIR          # all sides in turn, and ours

Sides: `tfdata`, the original's host preprocessing in tf.data, written anew from its description; `pillow`, the transforms of lightly's
SimCLR in a PyTorch DataLoader; `v2`, torchvision's transforms on tensors. Each makes two views of 224 pixels. With `--crops` a side only
decodes, crops and resizes, which is what ours does on the host: it leaves flip, colour and blur to the device. With `--decode` it only
decodes.
"""
import argparse
import glob
import io
import os
import statistics
import struct
import time

parser = argparse.ArgumentParser()
parser.add_argument("side", choices=["tfdata", "pillow", "v2"])
parser.add_argument("data_dir")
parser.add_argument("--crops", action="store_true")
parser.add_argument("--decode", action="store_true")
parser.add_argument("--images", type=int, default=512)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--threads", type=int, default=os.cpu_count())
options = parser.parse_args()
SIZE, BATCH = 224, 64
files = sorted(glob.glob(f"{options.data_dir}/imagenet2012/*/imagenet2012-train.tfrecord-*"))


def tfdata():
    import tensorflow as tf

    def crop(image):
        shape = tf.shape(image)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.zeros([0, 0, 4]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.slice(image, begin, extent)
        return tf.image.resize(image, [SIZE, SIZE], "bicubic")

    def jitter(image):
        def one(image, which):
            factor = lambda low, high: tf.random.uniform([], low, high)
            image = tf.switch_case(
                which,
                [
                    lambda: image * factor(0.2, 1.8),
                    lambda: tf.image.random_contrast(image, 0.2, 1.8),
                    lambda: tf.image.random_saturation(image, 0.2, 1.8),
                    lambda: tf.image.random_hue(image, 0.2),
                ],
            )
            return tf.clip_by_value(image, 0.0, 1.0)

        order = tf.random.shuffle(tf.range(4))
        for place in range(4):
            image = one(image, order[place])
        return image

    def chance(p, change, image):
        return tf.cond(tf.random.uniform([]) < p, lambda: change(image), lambda: image)

    def view(image):
        image = crop(image)
        if not options.crops:
            image = tf.image.random_flip_left_right(image)
            image = chance(0.8, jitter, image)
            grey = lambda x: tf.tile(tf.image.rgb_to_grayscale(x), [1, 1, 3])
            image = chance(0.2, grey, image)
        return tf.clip_by_value(tf.ensure_shape(image, [SIZE, SIZE, 3]), 0.0, 1.0)

    def example(record):
        encoded = tf.io.parse_single_example(
            record, {"image": tf.io.FixedLenFeature([], tf.string)}
        )["image"]
        image = tf.io.decode_jpeg(encoded, channels=3)
        if options.decode:
            return tf.reduce_max(image)
        image = tf.image.convert_image_dtype(image, tf.float32)
        return tf.concat([view(image), view(image)], -1)

    data = tf.data.TFRecordDataset(files).cache().shuffle(512).repeat()
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    pool = tf.data.Options()
    pool.threading.private_threadpool_size = options.threads
    return iter(data.with_options(pool))


def fields(message):
    """Fields of a protobuf message of which all are length-delimited; others are passed over."""

    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7

    at = 0
    while at < len(message):
        tag, at = varint(at)
        if tag & 7 == 2:
            size, at = varint(at)
            yield message[at : at + size]
            at += size
        else:
            _, at = varint(at)


def pictures():
    found = []
    for path in files:
        content = memoryview(open(path, "rb").read())
        at = 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            for entry in fields(next(fields(content[at + 12 : at + 12 + size]))):
                key, feature = fields(entry)
                if bytes(key) == b"image":
                    found.append(bytes(next(fields(next(fields(feature))))))
            at += 16 + size
    return found


def loader(decode, transform):
    import torch

    class Pictures(torch.utils.data.Dataset):
        def __init__(self):
            self.encoded = []
            for encoded in pictures():
                try:
                    decode(encoded)
                    self.encoded.append(encoded)
                except Exception:  # CMYK, or a PNG where a JPEG is expected
                    pass

        def __len__(self):
            return 1 << 20

        def __getitem__(self, index):
            image = decode(self.encoded[index % len(self.encoded)])
            return 0 if options.decode else (transform(image), transform(image))

    torch.set_num_threads(1)
    return iter(
        torch.utils.data.DataLoader(
            Pictures(), BATCH, num_workers=options.threads, prefetch_factor=2
        )
    )


def pillow():
    from PIL import Image
    from torchvision import transforms as t

    jitter = t.ColorJitter(0.8, 0.8, 0.8, 0.2)
    colour = [
        t.RandomHorizontalFlip(),
        t.RandomApply([jitter], 0.8),
        t.RandomGrayscale(0.2),
        t.RandomApply([t.GaussianBlur(23, (0.1, 2.0))], 0.5),
    ]
    crop = t.RandomResizedCrop(SIZE, interpolation=t.InterpolationMode.BICUBIC)
    end = [t.ToTensor(), t.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    transform = t.Compose([crop, *([] if options.crops else colour), *end])
    return loader(lambda encoded: Image.open(io.BytesIO(encoded)).convert("RGB"), transform)


def v2():
    import torch
    from torchvision import io as tio
    from torchvision.transforms import v2 as t

    colour = [
        t.RandomHorizontalFlip(),
        t.RandomApply([t.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        t.RandomGrayscale(0.2),
        t.RandomApply([t.GaussianBlur(23, (0.1, 2.0))], 0.5),
    ]
    crop = t.RandomResizedCrop(SIZE, interpolation=t.InterpolationMode.BICUBIC, antialias=True)
    transform = t.Compose([crop, *([] if options.crops else colour)])

    def decode(encoded):
        data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        return tio.decode_jpeg(data, mode=tio.ImageReadMode.RGB)

    return loader(decode, transform)


batches = {"tfdata": tfdata, "pillow": pillow, "v2": v2}[options.side]()
for _ in range(6):  # queues and workers are warm, and nothing made ahead is counted
    next(batches)
speeds = []
for _ in range(options.repeats):
    begin = time.perf_counter()
    for _ in range(options.images // BATCH):
        next(batches)
    speeds.append(options.images // BATCH * BATCH / (time.perf_counter() - begin))
what = "decode only" if options.decode else "crops only" if options.crops else "whole host part"
print(
    f"{options.side:8} {what:16} {statistics.median(speeds):8.1f} images/s "
    f"({min(speeds):.1f} to {max(speeds):.1f})"
)
