"""PIC as a Keras model in a user's own code."""

import keras_cv
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.data.augment import Augmentation


def images_and_ids(n=32, size=16):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, size, size, 3)).astype(np.float32), np.arange(n)


def small_backbone():
    return keras.Sequential(
        [
            keras.Input([16, 16, 3]),
            keras.layers.Conv2D(8, 3, 2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
        ]
    )


def test_fit_of_the_users_own_backbone_learns_its_instances():
    images, ids = images_and_ids()
    model = pic_tf.PIC(small_backbone(), num_instances=32, hidden_dim=64)
    model.compile(pic_tf.LazySGD(0.03))
    data = tf.data.Dataset.from_tensor_slices((images, ids)).shuffle(32, seed=0).batch(8).repeat()
    history = model.fit(data, epochs=10, steps_per_epoch=20, verbose=0).history
    assert set(history) == {"loss", "accuracy", "row_norm", "floored", "skipped", "live_rows", "learning_rate"}
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["accuracy"][-1] > 0.5 > 8 * history["accuracy"][0] / 32
    assert model.predict(images, verbose=0).shape == (32, 128)
    assert model.features(images).shape == (32, 8)


def test_a_keras_cv_backbone_with_feature_maps():
    """keras-cv's ResNet gives [B, h, w, C]; PIC averages it."""
    backbone = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[16, 32],
        stackwise_blocks=[2, 2],
        stackwise_strides=[1, 2],
        include_rescaling=False,
        input_shape=(32, 32, 3),
    )
    model = pic_tf.PIC(backbone, num_instances=64, num_negatives=16, head="linear", embedding_dim=32)
    model.compile(pic_tf.LazySGD(0.01, max_updates=10))
    images, ids = images_and_ids(8, 32)
    before = backbone.trainable_variables[0].numpy()
    model.fit(images, ids, batch_size=8, epochs=2, verbose=0)
    assert not np.array_equal(before, backbone.trainable_variables[0].numpy())
    assert model.features(images).shape == (8, backbone.output_shape[-1])


def test_augmentation_inside_the_step():
    augmentation = Augmentation(blur_probability=0.0)
    model = pic_tf.PIC(small_backbone(), 32, augment=lambda views: augmentation(*views))
    model.compile(pic_tf.LazySGD(0.1, max_updates=10))
    views = (np.zeros((32, 16, 16, 3), np.uint8), np.random.default_rng(0).uniform(size=(32, 10)).astype(np.float32))
    data = tf.data.Dataset.from_tensor_slices((views, np.arange(32))).batch(16)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"][0])


def test_head_none_uses_the_features_as_embedding():
    model = pic_tf.PIC(small_backbone(), 32, head="none")
    assert model.classifier.embedding_dim == 8
    assert model.classifier.weights_ring.shape == (32, 8)


@pytest.mark.parametrize(
    "use, error, sentence",
    [
        (lambda m: m.compile(keras.optimizers.SGD()), TypeError, "expected a pic_tf.LazySGD, got SGD"),
        (
            lambda m: m.fit(np.zeros([8, 16, 16, 3]), verbose=0),
            ValueError,
            r"expected batches of \(images, instance_ids",
        ),
        (
            lambda m: pic_tf.PIC(keras.Sequential([keras.layers.Dense(3)]), 9),
            ValueError,
            "expected a backbone with one",
        ),
        (lambda m: pic_tf.PIC(small_backbone(), 9, head="mlp2"), ValueError, "expected head to be one of"),
        (lambda m: m.evaluate(*images_and_ids()), NotImplementedError, "expected fit without validation data"),
        (lambda m: pic_tf.nonsense, AttributeError, "it has PIC, LazySGD"),
    ],
)
def test_wrong_use(use, error, sentence):
    model = pic_tf.PIC(small_backbone(), 32)
    model.compile(pic_tf.LazySGD(0.1, max_updates=10))
    with pytest.raises(error, match=sentence):
        use(model)


def test_ids_out_of_range_are_refused():
    model = pic_tf.PIC(small_backbone(), 32, num_negatives=16)
    model.compile(pic_tf.LazySGD(0.1, max_updates=10))
    images, ids = images_and_ids(8)
    for wrong in (-1, 32):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected instance ids from 0 to 31"):
            model.fit(images, np.where(ids == 3, wrong, ids), batch_size=8, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at most 16 images a batch"):
        model.fit(*images_and_ids(24), batch_size=24, verbose=0)
