"""The floor under the norms of rows that return, however short they have become."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.norm_floor import lift
from pic_tf.optim.schedules import WarmupCosine
from tests.instances.test_ring import D, make


def test_the_floor_lifts_short_rows_and_changes_no_cosine():
    model, _ = make(16, 0.1, min_row_norm=2.0)
    classifier, optimizer = model.classifier, model.optimizer
    optimizer.build(model.trainable_variables)
    rows = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
    rows *= np.array([[0.5], [3.0], [0.0]], np.float32) / np.linalg.norm(
        rows, axis=1, keepdims=True
    )
    momentum = np.ones((3, D), np.float32)
    classifier.store.write(
        tf.constant([4, 5, 6], tf.int64), rows, momentum, tf.constant(3, tf.int64)
    )
    optimizer.iterations.assign(3)
    slots, happened = classifier.admit(tf.constant([6, 4, 5], tf.int64), optimizer)
    lifted = classifier.weights_ring.numpy()[slots.numpy()]
    np.testing.assert_allclose(
        np.linalg.norm(lifted, axis=1), [0.0, 2.0, 3.0], rtol=1e-6
    )  # float32 norms
    np.testing.assert_allclose(lifted[1], 4 * rows[0], rtol=1e-6)
    np.testing.assert_allclose(
        classifier.momentum_ring.numpy()[slots.numpy()[1]], 4 * momentum[0], rtol=1e-6
    )
    assert happened["fetched"].numpy().all()
    assert happened["returning"].numpy().all() and happened["floored"].numpy().sum() == 1
    np.testing.assert_allclose(sorted(happened["norm"].numpy()), [0.0, 0.5, 3.0], rtol=1e-6)
    _, happened = classifier.admit(
        tf.constant([7], tf.int64), optimizer
    )  # new to the ring, and as short as all are
    assert happened["fetched"].numpy().all() and happened["norm"].numpy()[0] < 0.1
    assert not happened["returning"].numpy().any() and not happened["floored"].numpy().any()


def test_the_floor_lifts_a_row_that_float32_cannot_square():
    """The shrink between two sweeps of 1e8 images at the paper's settings is 4e-21."""
    schedule = WarmupCosine(0.3, 400, 40)
    model, _ = make(16, schedule, min_row_norm=0.5)
    classifier, optimizer = model.classifier, model.optimizer
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(3)
    row = np.random.default_rng(0).normal(size=(1, D))
    row /= np.linalg.norm(row)
    for shrink in (1e-17, 4e-21, 1e-30):  # float32 holds what the store has
        classifier.store.write(
            tf.constant([4], tf.int64),
            (shrink * row).astype(np.float32),
            tf.zeros([1, D]),
            tf.constant(3, tf.int64),
        )
        slots, happened = classifier.admit(tf.constant([4], tf.int64), optimizer)
        lifted = classifier.weights_ring.numpy()[slots.numpy()[0]]
        np.testing.assert_allclose(lifted, 0.5 * row[0], rtol=1e-5)  # float32 rounding of the row
        assert happened["floored"].numpy().tolist() == [True]
        classifier.ids.assign(tf.fill([16], np.int64(-1)))


@pytest.mark.parametrize("shrink", [1e-100, 1e-170, 1e-300])
def test_the_floor_lifts_a_row_that_float64_cannot_square(shrink):
    """Left in float64 after the rest among some 1e9 images."""
    row = np.random.default_rng(0).normal(size=(1, D))
    weights, _, norm, lifted = lift(tf.constant(shrink * row), tf.zeros([1, D], tf.float64), 0.5)
    np.testing.assert_allclose(
        weights, 0.5 * row / np.linalg.norm(row), rtol=1e-6
    )  # rounded to float32
    assert lifted.numpy().tolist() == [True] and norm.numpy() < 0.5


def test_the_floor_is_the_initial_norm_for_cosines_and_off_for_dot_products():
    assert InstanceClassifier(10, 64, 5).min_row_norm == pytest.approx(0.08)
    assert InstanceClassifier(10, 64, 5, similarity="dot").min_row_norm == 0
