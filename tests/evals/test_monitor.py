"""The monitor with and without labels, and with features that have collapsed."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.augment import normalise
from pic_tf.data.crops import Crop
from pic_tf.data.sources.array import ArraySource
from pic_tf.evals.feature_health import FIGURES, ViewPairs
from pic_tf.evals.knn import knn_accuracy
from pic_tf.evals.monitor import FeatureMonitor
from pic_tf.evals.some_images import SomeImages


def network():
    pixels = keras.Input([None, None, 3])
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    return keras.Model(pixels, keras.layers.Dense(3, name="features")(pooled))


def source(count, labelled):
    images = np.random.default_rng(count).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return ArraySource(images, np.arange(count) % 2 if labelled else None, ("a", "b"))


def some(images):
    return SomeImages(images, 100, 0, image_size=4, eval_crop=1.0, max_broken=0.0)


def test_label_curves_name_what_the_network_began_as():
    bank, queries = source(30, True), source(20, True)
    monitor = FeatureMonitor(
        network(),
        network(),
        True,
        some(bank),
        some(queries),
        ViewPairs(bank, Crop(3), lambda views, _: normalise(views), seed=0),
        every=2,
        epochs=3,
        k=5,
        temperature=0.07,
        label_counts=(4,),
        beginning="initial weights",
    )
    monitor.measure_references()
    assert list(monitor.label_curves()) == ["pretrained", "initial weights", "raw pixels"]


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(
        ValueError, match=r"^expected finite features of array, got others of 5 of 5"
    ):
        some(source(5, False)).extract(lambda batches: np.full([5, 3], np.inf, np.float32))


@pytest.mark.parametrize("labelled", [False, True])
def test_figures_of_each_evaluation(labelled, capfd):
    bank, queries = source(30, labelled), source(20, labelled)
    backbone, evaluated = network(), network()
    monitor = FeatureMonitor(
        backbone,
        evaluated,
        True,
        some(bank),
        some(queries) if labelled else None,
        ViewPairs(bank, Crop(3), lambda views, _: normalise(views), seed=0),
        every=2,
        epochs=3,
        k=5,
        temperature=0.07,
    )
    monitor.measure_references()
    names = ("knn", "rankme") if labelled else ("rankme",)
    assert set(monitor.references) == set(names)
    logs = [{"loss": 1.0} for _ in range(3)]
    monitor.on_epoch_end(0, logs[0])
    monitor.on_epoch_end(1, logs[1])
    assert logs[0] == {"loss": 1.0}
    assert set(logs[1]) == {"loss", *FIGURES} | ({"knn"} if labelled else set())
    of_pixels = [backbone(normalise(tf.constant(x.images))).numpy() for x in (bank, queries)]
    if labelled:
        expected = knn_accuracy(of_pixels[0], bank.labels, of_pixels[1], queries.labels, 5)
        assert logs[1]["knn"] == expected
    assert logs[1]["rankme"] == monitor.references["rankme"]["random network"]
    assert "warning" not in capfd.readouterr().err
    # The same features for all images.
    backbone.layers[-1].set_weights([np.zeros([3, 3]), np.ones(3)])
    monitor.on_epoch_end(2, logs[2])
    assert logs[2]["cosine_of_images"] == pytest.approx(1) and logs[2]["rankme"] < 1.01
    told = capfd.readouterr().err
    assert told.startswith("epoch 3: loss 1.000, ") and " of images\nwarning: the features" in told
