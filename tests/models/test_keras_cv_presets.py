"""Presets of keras-cv as backbones, from a folder: theirs lie at Kaggle."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.augment import normalise
from pic_tf.data.normalisation import IMAGENET
from pic_tf.models.keras_cv_presets import preset_network, presets
from pic_tf.models.named import check_name, named_backbone
from pic_tf.settings.quantities import _kept_in_any_network
from tests.models.test_named import settings_of
from tests.short_runs import run


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder as keras-cv writes it, and its network, which takes images in [0, 1]."""
    import keras_cv

    network = keras_cv.models.ResNetBackbone(
        stackwise_filters=[4, 8],
        stackwise_blocks=[1, 1],
        stackwise_strides=[1, 2],
        include_rescaling=False,
        input_shape=(None, None, 3),
    )
    folder = tmp_path_factory.mktemp("preset")
    network.save_weights(folder / "model.weights.h5")
    config = keras.saving.serialize_keras_object(network) | {"weights": "model.weights.h5"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, network


def test_a_preset_gets_the_levels_that_it_scales(preset):
    folder, network = preset
    levels = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 3]).astype(np.uint8)
    got = named_backbone(f"keras_cv:{folder}", *IMAGENET, "preset")(normalise(tf.constant(levels)))
    expected = tf.reduce_mean(network(levels / np.float32(255)), [1, 2])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)  # levels of 255 in float32
    other = named_backbone(f"keras_cv:{folder}", *IMAGENET)(normalise(tf.constant(levels)))
    assert np.abs(other - expected).max() > 1e-2  # random weights without the word


def test_the_plan_looks_into_a_preset(preset):
    folder, network = preset
    alone = keras.Model(network.inputs, network.outputs)  # what keras-cv's class adds aside
    own = _kept_in_any_network(alone, 16)
    assert own > 0
    assert _kept_in_any_network(named_backbone(f"keras_cv:{folder}", *IMAGENET), 16) == own


def test_a_run_from_the_weights_of_a_preset(preset, tmp_path):
    settings = dataclasses.replace(
        settings_of(f"keras_cv:{preset[0]}", tmp_path, 16), initial_weights="preset"
    )
    assert run(settings).step == 3
    exported = tf.saved_model.load(str(tmp_path / "backbone"))
    assert exported(tf.zeros([2, 16, 16, 3]), training=False).shape == (2, 32)


def test_presets_are_those_of_images():
    names = set(presets())
    assert names >= {"resnet50_v2_imagenet", "efficientnetv2_b0", "mobilenet_v3_small", "mit_b0"}
    assert not [name for name in names if "swin" in name or "pillar" in name]
    check_name("keras_cv:resnet18_v2")
    with pytest.raises(
        ValueError, match=r"^expected --backbone=keras_cv:PRESET .* got 'resnet18_v3'.*resnet18_v2"
    ):
        check_name("keras_cv:resnet18_v3")


def test_what_cannot_be_loaded_is_one_sentence(preset, tmp_path):
    config = json.loads((preset[0] / "config.json").read_text()) | {"weights": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"^expected keras-cv to load its preset .* got The spec[^\n]*$"
    ):
        preset_network(str(tmp_path), True)
    assert preset_network(str(tmp_path), False).output_shape == (None, None, None, 32)
