"""Backbones by name: every network of tf_keras.applications gets the images it was published with."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.augment import normalise
from pic_tf.data.normalisation import IMAGENET
from pic_tf.models import named
from pic_tf.models.named import applications, check_name, named_backbone
from pic_tf.settings import defaults
from pic_tf.settings.config import Config
from pic_tf.settings.networks import describe
from tests.short_runs import SMALL, one_epoch, picture_folder, run

# One of each family that differs in its scaling or its layers; the others are larger.
RUN = ("MobileNetV2", "EfficientNetV2B0", "ResNet50V2", "DenseNet121", "ConvNeXtTiny", "VGG16")

# The smallest of each other family, by the file of Keras that has it.
OTHERS = """ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionResNetV2 InceptionV3
MobileNet MobileNetV2 MobileNetV3Small ResNet50 ResNet50V2 ResNetRS50 VGG16 VGG19 Xception"""
FAMILIES = [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS.split()]


def no_model() -> str:
    return "no model"


def own() -> keras.Model:
    """A network for images of 8 pixels that ends in maps."""
    images = keras.Input([8, 8, 3])
    x = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, 2)(images))
    return keras.Model(images, x, name="own")


@pytest.mark.parametrize("mode", ["ResNet50", "MobileNetV2", "DenseNet121", "EfficientNetB0"])
def test_networks_get_the_levels_of_their_own_scaling(monkeypatch, mode):
    """The published function of NumPy levels, against the layers of normalised views."""
    _, scaling = applications()[mode]

    def pass_on(include_top, pooling, weights):
        assert (include_top, pooling, weights) == (False, "avg", None)
        images = keras.Input([4, 4, 3])
        levels = keras.layers.Reshape([48])(images)  # of maps there would be averages alone
        return keras.Model(images, levels, name=mode)

    monkeypatch.setattr(named, "applications", lambda: {mode: (pass_on, scaling)})
    levels = np.random.default_rng(0).integers(0, 256, [2, 4, 4, 3]).astype(np.uint8)
    got = named_backbone(f"applications:{mode}", *IMAGENET)(normalise(tf.constant(levels))).numpy()
    expected = scaling(levels.astype(np.float64).copy()).reshape(2, 48)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-4)  # levels of 255 in float32


@pytest.mark.parametrize("name", ["RegNetX002", *FAMILIES])
def test_levels_come_to_the_first_layer(name):
    """Keras' own network on levels, against the one of normalised views."""
    levels = np.random.default_rng(0).integers(0, 256, [2, 224, 224, 3]).astype(np.uint8)
    levels[1] //= 2
    network = named_backbone(f"applications:{name}", *IMAGENET)
    builder, scaling = applications()[name]
    alone = builder(include_top=False, pooling="avg", weights=None)
    alone.set_weights(network.get_weights())
    expected = alone(scaling(levels.astype(np.float32))).numpy()
    got = network(normalise(tf.constant(levels))).numpy()
    # Seen: 1.3e-6 of the largest feature, and some 1 where a network took the views.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_network_is_there():
    names = set(applications())
    assert len(names) >= 69
    assert names >= {"MobileNetV3Small", "ConvNeXtXLarge", "RegNetY320", *RUN}
    for name in names:
        check_name(f"applications:{name}")


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"backbone": "resnet19"},
            r"expected --backbone=resnetN with N of 18, 34, 50, 101, 152, got r",
        ),
        (
            {"backbone": "applications:VGG17"},
            r"expected --backbone=applications:NAME of one of \d\d .*VGG1",
        ),
        (
            {"backbone": "applications:NASNetMobile"},  # it would fail at its first views
            r"expected --backbone=applications:NAME of one of \d\d networks, got 'NASNetMobile'",
        ),
        (
            {"backbone": "vit"},
            r"expected --backbone to be resnet18, .* got 'vit' \(no name of this form",
        ),
        (
            {"backbone": "no.module:f"},
            r"expected --backbone to be .* got 'no.module:f' \(No module",
        ),
        (
            {"backbone": "os:no"},
            r"expected --backbone to be .* got 'os:no' \(module 'os' has no at",
        ),
        (
            {"backbone": f"{__name__}:own", "width": 8},
            r"expected --stem and --width with a ResNet alon",
        ),
        (
            {"initial_weights": "imagenet"},
            r"expected --backbone=applications:NAME with --initial_weigh",
        ),
        (
            {"initial_weights": "preset", "backbone": "applications:VGG16"},
            r"expected --backbone=keras_cv:NAME with --initial_weights=pre",
        ),
    ],
)
def test_wrong_names_get_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        defaults.resolve(Config(**changes), 10_000)


def test_a_function_that_returns_no_model():
    with pytest.raises(
        ValueError, match=r"^expected a model of tf_keras from .*:no_model', got str"
    ):
        named_backbone(f"{__name__}:no_model", *IMAGENET)


def settings_of(backbone: str, output, size: int) -> Config:
    """Three steps of a network."""
    return dataclasses.replace(
        SMALL,
        backbone=backbone,
        stem="imagenet",
        width=64,
        image_size=size,
        epochs=1,
        batch_size=500,
        num_negatives=500,
        knn_every=1,
        tensorboard=False,
        output_dir=str(output),
    )


def test_a_function_of_yours_from_plan_to_export(tmp_path):
    """The plan knows its activations, and the export takes images in [0, 1]."""
    settings = settings_of(f"{__name__}:own", tmp_path, 8)
    plan = describe(defaults.resolve(settings, 1500), tf.distribute.get_strategy())
    assert "tests.models.test_named:own: 168 trainable parameters" in plan
    head_none = dataclasses.replace(settings, head="none")
    assert defaults.resolve(head_none, 1500).embedding_dim == 6
    assert run(settings).finished
    exported = tf.saved_model.load(str(tmp_path / "backbone"))
    assert exported(tf.zeros([2, 8, 8, 3]), training=False).shape == (2, 6)
    with pytest.raises(
        ValueError, match=r"^expected a backbone for views of 9 pixels, got own, wh"
    ):
        wrong = defaults.resolve(settings_of(f"{__name__}:own", tmp_path, 9), 1500)
        describe(wrong, tf.distribute.get_strategy())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*(f"applications:{name}" for name in RUN), "ours:vit_tiny_patch8"]
)
def test_three_steps(tmp_path, name):
    """Batches of 8: one of 500 took ConvNeXtTiny 20 seconds, and told no more."""
    settings = dataclasses.replace(
        one_epoch(picture_folder(tmp_path / "pictures"), tmp_path / "run", knn_every=1),
        backbone=name,
        stem="imagenet",
        width=64,
        image_size=32,
        tensorboard=False,
    )
    result = run(settings)
    assert (result.step, result.finished) == (3, True)
