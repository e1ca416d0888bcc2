"""PIC as a Keras model in a user's own code."""

import keras_cv
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.autograph.impl import conversion

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
    shown = "loss accuracy left_out skipped live_rows learning_rate"  # no row rests
    assert set(history) == set(shown.split())
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
    model = pic_tf.PIC(
        backbone, num_instances=64, num_negatives=16, head="linear", embedding_dim=32
    )
    model.compile(pic_tf.LazySGD(0.01, max_updates=10))
    images, ids = images_and_ids(8, 32)
    before = backbone.trainable_variables[0].numpy()
    model.fit(images, ids, batch_size=8, epochs=2, verbose=0)
    assert not np.array_equal(before, backbone.trainable_variables[0].numpy())
    assert model.features(images).shape == (8, backbone.output_shape[-1])


class Folded(keras.layers.Layer):
    """x of a positive sum by a condition on a tensor, which AutoGraph makes one of the graph."""

    def call(self, inputs):
        return inputs if tf.reduce_sum(inputs) > 0 else -inputs


def test_autograph_converts_layers_of_the_user_and_nothing_else():
    """TensorFlow 2.15 converted Keras as well, and all of PIC with it: 20 s before a step."""
    assert conversion.is_allowlisted(keras.layers.Dense.call)
    model = keras.Sequential([keras.Input([3]), Folded()])
    assert model.predict(-np.ones([1, 3]), verbose=0).tolist() == [[1, 1, 1]]


def test_augmentation_inside_the_step():
    augmentation = Augmentation(blur_probability=0.0)
    model = pic_tf.PIC(small_backbone(), 32, augment=lambda views: augmentation(*views))
    model.compile(pic_tf.LazySGD(0.1, max_updates=10))
    views = (
        np.zeros((32, 16, 16, 3), np.uint8),
        np.random.default_rng(0).uniform(size=(32, 10)).astype(np.float32),
    )
    data = tf.data.Dataset.from_tensor_slices((views, np.arange(32))).batch(16)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"][0])


def linear_network():
    inputs = keras.Input([None, None, 3])
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(6, use_bias=False)(features))


@pytest.mark.parametrize("small_crops_move_rows", [False, True])
@pytest.mark.parametrize("sizes", [((16, 2),), ((16, 1), (8, 3))], ids=["two views", "multi-crop"])
def test_several_views_of_an_image_against_autodiff_in_float64(sizes, small_crops_move_rows):
    """One step over groups of (size, views of each image): the mean loss over all views against
    all rows.
    """
    rng, n, b, rate = np.random.default_rng(3), 12, 4, 0.5
    model = pic_tf.PIC(
        linear_network(), n, head="none", small_crops_move_rows=small_crops_move_rows
    )
    model.compile(pic_tf.LazySGD(rate, momentum=0.0, weight_decay=0.0, max_updates=1))
    groups = tuple(
        rng.normal(size=(b * count, size, size, 3)).astype(np.float32) for size, count in sizes
    )
    ids, weights = np.array([5, 0, 11, 7]), np.array([1.0, 1.0, 0.0, 1.0], np.float32)
    kernel, rows = (
        model.backbone.get_weights()[0].astype(np.float64),
        model.classifier.weights_ring.numpy(),
    )
    kernel, rows = tf.constant(kernel), tf.constant(rows.astype(np.float64))
    with tf.GradientTape() as tape:
        tape.watch([kernel, rows])
        losses = []
        for group, (views, (_, count)) in enumerate(zip(groups, sizes)):
            moved = rows if group == 0 or small_crops_move_rows else tf.stop_gradient(rows)
            embedding = tf.linalg.l2_normalize(
                views.astype(np.float64).mean(axis=(1, 2)) @ kernel, axis=1
            )
            logits = embedding @ tf.transpose(tf.linalg.l2_normalize(moved, axis=1)) / 0.2
            of_views = tf.nn.sparse_softmax_cross_entropy_with_logits(np.repeat(ids, count), logits)
            losses.append(np.repeat(weights, count) * of_views)
        loss = tf.reduce_mean(tf.concat(losses, 0))
    expected = [
        value - rate * g for value, g in zip((kernel, rows), tape.gradient(loss, [kernel, rows]))
    ]
    history = model.fit(tf.data.Dataset.from_tensors((groups, ids, weights)), verbose=0).history
    # float32 roundings of some hundred terms, relative to rows of norm 0.02 and their steps of
    # about 1
    np.testing.assert_allclose(model.backbone.get_weights()[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(model.classifier.weights_ring, expected[1], atol=2e-5)
    views_with_loss = sum(np.repeat(weights, count).sum() for _, count in sizes)
    assert history["loss"][0] == pytest.approx(
        float(tf.reduce_sum(tf.concat(losses, 0))) / views_with_loss, rel=1e-5
    )
    assert history["left_out"][0] == 1


def test_head_none_uses_the_features_as_embedding():
    model = pic_tf.PIC(small_backbone(), 32, head="none")
    assert model.classifier.embedding_dim == 8
    assert model.classifier.weights_ring.shape == (32, 8)


@pytest.mark.parametrize(
    "use, error, sentence",
    [
        (
            lambda m: m.compile(keras.optimizers.SGD()),
            TypeError,
            "expected a pic_tf.LazySGD, got SGD",
        ),
        (
            lambda m: m.fit(np.zeros([8, 16, 16, 3]), verbose=0),
            ValueError,
            r"expected batches of \(images, instance_ids\) or",
        ),
        (
            lambda m: pic_tf.PIC(keras.Sequential([keras.layers.Dense(3)]), 9),
            ValueError,
            "expected a backbone with one",
        ),
        (
            lambda m: pic_tf.PIC(small_backbone(), 9, head="mlp2"),
            ValueError,
            "expected head to be one of",
        ),
        (
            lambda m: m.evaluate(*images_and_ids()),
            NotImplementedError,
            "expected fit without validation data",
        ),
        (lambda m: pic_tf.nonsense, AttributeError, "it has .*PIC, LazySGD"),
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
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="expected instance ids from 0 to 31"
        ):
            model.fit(images, np.where(ids == 3, wrong, ids), batch_size=8, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at most 16 images a batch"):
        model.fit(*images_and_ids(24), batch_size=24, verbose=0)
