"""An evaluation of a tiny network on a small folder of classes, and its parts."""

import json
import pathlib

import numpy as np
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.evals.protocols import evaluate, open_labelled
from pic_tf.evals.settings import EvaluationSettings, resolve
from pic_tf.serving.exported import open_exported

ONE = tf.distribute.get_strategy()  # one replica
SIZE = 16  # pixels
COLOURS = {"blue": (60, 60, 150), "green": (60, 150, 60), "red": (150, 60, 60)}
COUNT = {"train": 20, "val": 7}  # images a class


def network() -> keras.Model:
    """Two convolutions with batch normalisation: a ResNet-18 takes seconds to load, in each
    test.
    """
    inputs = x = keras.Input([None, None, 3])
    for name, channels, stride in (("stem", 8, 2), ("stage1_block1", 16, 1)):
        x = keras.layers.Conv2D(channels, 3, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="tiny")


def run(data, model, output, **flags):
    """The report of an evaluation of a folder or of two sources, and its JSON."""
    settings = EvaluationSettings(
        model=str(model),
        dataset="arrays" if isinstance(data, tuple) else str(data),
        output_dir=str(output),
        **flags,
    )
    exported = None if model == "pixels" else open_exported(model)
    settings = resolve(settings, exported)
    keras.utils.set_random_seed(settings.seed)
    sources = data if isinstance(data, tuple) else open_labelled(settings)
    found = evaluate(settings, exported, *sources, ONE)
    file = max(pathlib.Path(output).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return found, json.loads(file.read_text())


def pixels_of(folder, part):
    """(float64 [n, 16, 16, 3] in [0, 1], labels), the classes and the files in the order of
    their names.
    """
    files = sorted((folder / part).rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    return pixels, np.array([sorted(COLOURS).index(file.parent.name) for file in files])
