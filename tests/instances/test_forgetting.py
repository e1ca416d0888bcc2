"""Rows that begin anew after a long rest, against the dense reference."""

import pytest

from pic_tf.instances.classifier import InstanceClassifier
from tests.instances.test_ring import (
    TOLERANCE,
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


def test_a_rest_is_not_negative():
    with pytest.raises(ValueError, match="expected forget_after >= 0, got -1"):
        InstanceClassifier(10, 4, 5, forget_after=-1)
