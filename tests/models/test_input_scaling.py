"""The images that a backbone takes, found in its first layers, and what an export makes of them."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers
from tf_keras.applications.imagenet_utils import preprocess_input

from pic_tf.data.augment import Augmentation
from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.models.input_scaling import input_scaling
from pic_tf.models.resnet import resnet
from pic_tf.serving.convert import read
from pic_tf.serving.saved_model import export_backbone

pytestmark = pytest.mark.usefixtures("shallow_networks")
PLAIN = Augmentation(0.0, (0.0,) * 4, 0.0, 0.0, 0.0)


def body(images):
    maps = layers.Conv2D(5, 3, padding="same", kernel_initializer="random_normal")(images)
    return layers.GlobalAveragePooling2D()(layers.ReLU()(maps))


def network(first, size=None):
    """A small network with these first layers."""
    inputs = keras.Input([size, size, 3])
    return keras.Model(inputs, body(first(inputs)))


def within_others():
    """Scaling in one model, which stands in another one beside the network."""
    model = keras.Sequential(
        [keras.Sequential([layers.Rescaling(1 / 127.5, -1)]), network(lambda x: x)]
    )
    model.build([None, 16, 16, 3])
    return model


IMAGENET = layers.Normalization(
    mean=[255 * m for m in MEAN], variance=[(255 * s) ** 2 for s in STDDEV]
)
HALF, ZERO, ONE = (0.5,) * 3, (0.0,) * 3, (1.0,) * 3
CASES = {  # (backbone, what it takes, mean and deviation of its own scaling)
    "ours": (lambda: resnet(18, "small", 2), "normalised", ZERO, ONE),
    "batch normalisation": (lambda: network(layers.BatchNormalization()), "normalised", ZERO, ONE),
    "to [-1, 1]": (lambda: network(layers.Rescaling(2.0, -1.0)), "unit", HALF, HALF),
    "levels to [-1, 1]": (lambda: network(layers.Rescaling(1 / 127.5, -1)), "levels", HALF, HALF),
    "levels": (lambda: network(layers.Rescaling(1 / 255)), "levels", ZERO, ONE),
    "a smaller picture": (
        lambda: network(lambda x: layers.Rescaling(1 / 255)(layers.Resizing(4, 4)(x))),
        "levels",
        ZERO,
        ONE,
    ),
    "operators": (lambda: network(lambda x: x / 255.0), "levels", ZERO, ONE),
    "a function": (lambda: network(layers.Lambda(lambda x: x / 255)), "levels", ZERO, ONE),
    "statistics": (lambda: network(IMAGENET), "levels", MEAN, STDDEV),
    "blue first": (lambda: network(preprocess_input), "levels", None, None),
    "within others": (within_others, "levels", HALF, HALF),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_backbone_takes(name):
    make, takes, mean, stddev = CASES[name]
    found = input_scaling(make())
    assert found.takes == takes
    assert (found.mean is None) == (mean is None)
    if mean:
        np.testing.assert_allclose(found.mean, mean, atol=1e-4)  # of four digits
        np.testing.assert_allclose(found.stddev, stddev, atol=1e-4)


@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small", "MobileNetV2"])
def test_networks_of_keras(name):
    make = getattr(keras.applications, name)
    found = input_scaling(make(weights=None, include_top=False, input_shape=[32, 32, 3]))
    assert found.takes == ("normalised" if name == "MobileNetV2" else "levels")


class Hidden(keras.Model):
    """A network whose graph nobody sees."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, images, training=False):
        return self.dense(tf.reduce_mean(images / 255, [1, 2]))


@pytest.mark.parametrize(
    "make, got",
    [
        (Hidden, "first in it, which hides what it does"),
        (lambda: keras.Sequential([keras.Input([8, 8, 3]), Hidden()]), "first in it, which hides"),
        (lambda: network(layers.Rescaling(1e-4)), "first layers that bring 0 to .* and 1 to "),
    ],
    ids=["subclass", "within", "far too dark"],
)
def test_what_cannot_be_told_is_asked_for(make, got):
    with pytest.raises(ValueError, match=f"^expected a backbone whose scaling .*{got}.*: say what"):
        input_scaling(make())
    assert input_scaling(make(), "unit").takes == "unit"


def test_another_word():
    with pytest.raises(ValueError, match=r"^expected backbone_input to be one of normalised, unit"):
        input_scaling(network(layers.ReLU()), "bytes")


@pytest.mark.parametrize(
    "name, backbone_input",
    [
        ("ours", None),
        ("to [-1, 1]", None),
        ("statistics", None),
        ("blue first", None),
        ("within others", None),
        ("levels", "normalised"),  # trained on what it should not get, and exported so
        ("hidden", "levels"),
    ],
)
def test_features_of_an_export_are_those_of_training(name, backbone_input, tmp_path):
    """Through the augmentation without any change, the network in training's place, and through
    the export; once more, where the export is the backbone.
    """
    if name == "hidden":
        backbone = Hidden()
        backbone(tf.zeros([1, 16, 16, 3]))
    else:
        backbone = CASES[name][0]()
    images = np.random.default_rng(0).integers(0, 256, [4, 16, 16, 3], np.uint8)
    takes = backbone_input or input_scaling(backbone).takes
    views = dataclasses.replace(PLAIN, backbone_input=takes)(images, tf.zeros([4, 10]))
    expected = np.array(backbone(views, training=False))
    export_backbone(backbone, tmp_path / "once", backbone_input=backbone_input)
    paths = [tmp_path / "once"]
    if name in ("ours", "statistics"):
        again = keras.models.load_model(tmp_path / "once", compile=False)
        export_backbone(again, tmp_path / "again")
        paths.append(tmp_path / "again")
    for path in paths:
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        features = signature(images=tf.constant(images / 255, tf.float32))["features"]
        # The same network in float32, whose images differ by roundings: x / s - m / s and
        # (x - m) / s.
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    cards = [json.loads((path / "model_card.json").read_text())["preprocessing"] for path in paths]
    assert cards[0]["backbone_input"] == takes
    assert cards[1:] == [{**cards[0], "backbone_input": "unit"}] * len(paths[1:])
    if name == "ours":
        assert cards[0]["mean"] == list(MEAN) and cards[0]["stddev"] == list(STDDEV)


def test_weights_of_another_scaling_are_not_converted(tmp_path):
    """A ResNet for images in [-1, 1]: torchvision's would get others."""
    inputs = keras.Input([16, 16, 3])
    scaled = layers.Rescaling(2.0, -1.0)(inputs)
    export_backbone(keras.Model(inputs, resnet(18, "small", 2)(scaled)), tmp_path / "export")
    with pytest.raises(ValueError, match=r"^expected an export in .* normalises .* ImageNet's"):
        read(tmp_path / "export")
