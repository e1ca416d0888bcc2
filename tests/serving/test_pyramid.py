"""A ResNet for keras-cv's detectors: levels, strides, values; and RetinaNet learns on it."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.data.augment import normalise
from pic_tf.serving.open_resnet import open_resnet
from pic_tf.serving.pyramid import pyramid_backbone


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights, and its network."""
    resnet = pic_tf.resnet(18, width=4)
    path = tmp_path_factory.mktemp("weights") / "resnet.keras"
    resnet.save(path)
    return path, resnet


def test_levels_have_their_strides_and_the_last_is_what_the_backbone_averages(weights):
    path, resnet = weights
    backbone = pyramid_backbone(path)
    levels = np.random.default_rng(0).integers(0, 256, [2, 64, 96, 3]).astype(np.uint8)
    layers = [backbone.get_layer(name).output for name in backbone.pyramid_level_inputs.values()]
    maps = keras.Model(backbone.input, layers)(levels.astype(np.float32))
    assert list(backbone.pyramid_level_inputs) == ["P2", "P3", "P4", "P5"]
    assert [tuple(m.shape[1:]) for m in maps] == [
        *((16, 24, 4), (8, 12, 8), (4, 6, 16), (2, 3, 32))
    ]
    expected = resnet(normalise(tf.constant(levels)))
    # The scaling of levels in float32, in another order, through 18 layers.
    np.testing.assert_allclose(tf.reduce_mean(maps[-1], [1, 2]), expected, rtol=1e-3, atol=1e-4)


def test_the_stem_of_small_images_has_no_such_levels(tmp_path):
    pic_tf.resnet(18, stem="small", width=2).save(tmp_path / "small.keras")
    with pytest.raises(
        ValueError, match=r"^expected a ResNet with --stem=imagenet, [^\n]*small.ker"
    ):
        pyramid_backbone(tmp_path / "small.keras")


def test_a_classifier_of_another_normalisation_is_refused(tmp_path):
    """As its backbone is: the weights alone would see other images."""
    scaling = {"mean": [0.5, 0.5, 0.5], "stddev": [0.1, 0.1, 0.1]}
    card = {"format_version": 1, "kind": "classifier", "backbone": {"preprocessing": scaling}}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    (tmp_path / "saved_model.pb").touch()
    sentence = r"^expected an export in .* that normalises images by ImageNet's channel means, got"
    with pytest.raises(ValueError, match=sentence):
        open_resnet(tmp_path)


@pytest.mark.slow  # traces keras-cv's pyramid of 256 channels: 20 s
def test_retinanet_learns_tells_and_is_saved(weights, tmp_path):
    import keras_cv

    def detector():
        return keras_cv.models.RetinaNet(
            num_classes=2, bounding_box_format="xyxy", backbone=pyramid_backbone(weights[0])
        )

    model = detector()
    images = np.zeros([2, 64, 64, 3], np.float32)
    images[0, 8:40, 8:40], images[1, 24:56, 24:56, 0] = 255, 255
    boxes = np.array([[[8, 8, 40, 40]], [[24, 24, 56, 56]]], np.float32)
    model.compile(
        classification_loss="focal", box_loss="smoothl1", optimizer=keras.optimizers.Adam(1e-3)
    )
    data = tf.data.Dataset.from_tensors(
        (images, {"boxes": boxes, "classes": np.array([[0], [1]], np.float32)})
    ).repeat(16)
    losses = model.fit(data, verbose=0, epochs=2, steps_per_epoch=8).history["loss"]
    assert losses[1] < 0.7 * losses[0]
    told = model.predict(images, verbose=0)
    model.save_weights(tmp_path / "detector.weights.h5")
    again = detector()
    again.load_weights(tmp_path / "detector.weights.h5")
    found = again.predict(images, verbose=0)
    assert set(found) == {"boxes", "confidence", "classes", "num_detections"}
    for name, expected in told.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
