"""Small data sets of TensorFlow Datasets, prepared by the tests."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASSES = ("ant", "bee", "cat")
PICTURE = tfds.features.Image()
SPLITS = {"train": 29, "test": 10, "validation": 7}


def encoded(seed, kind="PNG"):
    """The bytes of a small image; some end in zeros, which NumPy's own strings would lose."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, [6, 5, 3], np.uint8)).save(
        buffer, kind
    )
    return buffer.getvalue() + bytes(seed % 3)


def written(split):
    """What goes into a split: [(bytes, label)], PNG and JPEG in turn, one image in seven without
    a label.
    """
    first = sum(map(ord, split))
    return [
        (encoded(first + i, ("PNG", "JPEG")[i % 2]), -1 if i % 7 == 6 else i % 3)
        for i in range(SPLITS[split])
    ]


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Registered, so that its name is known."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None  # not looked for: tfds 4.9.10 does so with a package that it does not require

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(written(split)):
            yield i, {"image": io.BytesIO(image), "label": label}


def prepare(builder, **options):
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False, **options)
    )
    return str(builder.data_dir)


def prepare_features(root, features, record):
    """The folder of a data set of one record, which is known by its folder only."""
    body = {
        "VERSION": tfds.core.Version("1.0.0"),
        "code_path": None,
        "_info": lambda self: tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        ),
        "_split_generators": lambda self, _: {"train": self._generate_examples()},
        "_generate_examples": lambda self: [(0, record)],
    }
    with tfds.core.registered.skip_registration():
        builder = type("Other", (tfds.core.GeneratorBasedBuilder,), body)
    return prepare(builder(data_dir=root, file_format="array_record"))
