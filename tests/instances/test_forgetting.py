"""Rows that begin anew after a long rest, against the dense reference."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from tests.instances.test_ring import (
    TOLERANCE,
    D,
    all_rows,
    batches,
    make,
    relative,
    sliding_window,
    train_both,
)


def test_rows_that_rest_for_long_begin_anew():
    ids = sliding_window(60)
    model, dense = make(32, 0.3, forget_after=5)
    _, remembering = make(32, 0.3)
    train_both(model, dense, ids, [0.3] * len(ids))
    for x, i in zip(batches(ids), ids):
        remembering.step(x, i, 0.3)
    assert relative(all_rows(model)[0], dense.rows) < TOLERANCE
    assert relative(all_rows(model)[0], remembering.rows) > 0.1  # another one forgets nothing


def test_a_row_that_begins_anew_does_not_count_as_floored():
    """First weights are as often short of the floor as not: that says nothing about rests."""
    model, _ = make(16, 0.1, min_row_norm=2.0, forget_after=5)
    classifier, optimizer = model.classifier, model.optimizer
    optimizer.build(model.trainable_variables)
    for instance, since in ((4, 1), (5, 8)):
        row = tf.fill([1, D], 0.01)
        at = tf.constant([instance], tf.int64)
        classifier.store.write(at, row, row, tf.constant(since, tf.int64))
    optimizer.iterations.assign(9)
    slots, happened = classifier.admit(tf.constant([4, 5], tf.int64), optimizer)
    assert happened["gap"].numpy().tolist() == [8, 1] and happened["returning"].numpy().all()
    assert happened["floored"].numpy().tolist() == [False, True]
    first, caught_up = classifier.weights_ring.numpy()[slots.numpy()]
    direction = classifier.store.first_weights(tf.constant([4], tf.int64)).numpy()[0]
    # Float32 rounding of the lift.
    np.testing.assert_allclose(first, 2 * direction / np.linalg.norm(direction), rtol=1e-6)
    assert np.ptp(caught_up) < 1e-6


def test_a_rest_is_not_negative():
    with pytest.raises(ValueError, match="expected forget_after >= 0, got -1"):
        InstanceClassifier(10, 4, 5, forget_after=-1)
