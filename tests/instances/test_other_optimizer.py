"""Another LazySGD takes over in the middle of a training, against dense SGD in float64."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.optim.lazy_sgd import LazySGD
from tests.instances.test_ring import (
    TOLERANCE,
    B,
    N,
    all_rows,
    batches,
    make,
    relative,
    sliding_window,
)


def train(model, dense, steps, rate):
    ids = sliding_window(90)
    x = batches(ids)
    span = slice(steps.start, steps.stop)
    model.fit(tf.data.Dataset.from_tensor_slices((x[span], ids[span])), verbose=0)
    for t in steps:
        dense.step(x[t], ids[t], rate)


def assert_equal(model, dense):
    weights, momentum = all_rows(model)
    assert relative(weights, dense.rows) < TOLERANCE
    assert relative(momentum, dense.row_momentum) < 10 * TOLERANCE
    assert relative(model.backbone.get_weights()[0], dense.encoder) < TOLERANCE


@pytest.mark.parametrize("num_negatives", [24, N])
def test_rows_are_those_of_dense_sgd_whichever_optimizer_moved_them(num_negatives):
    """As after unfreezing layers: with other numbers, from step 0; then back to the first one."""
    model, dense = make(num_negatives, 0.3)
    first = model.optimizer
    train(model, dense, range(30), 0.3)
    model.compile(LazySGD(0.1, 0.8, 1e-2, max_updates=60))
    assert_equal(model, dense)  # at once, before any step
    dense.encoder_momentum[:] = 0  # momentum of the network is the optimizer's, in Keras
    dense.m, dense.decay = 0.8, 1e-2
    train(model, dense, range(30, 60), 0.1)
    assert_equal(model, dense)
    if num_negatives == N:
        return
    model.compile(LazySGD(0.2, 0.9, 5e-3))
    model.compile(first)  # whose own step is 30
    dense.m, dense.decay = 0.9, 5e-3
    momentum = dense.encoder_momentum = first.momentums[0].numpy().astype(np.float64)
    assert np.any(momentum)
    train(model, dense, range(60, 90), 0.3)
    assert_equal(model, dense)


def test_without_correction_rows_stay_as_they_left():
    model, dense = make(24, 0.3, weight_correction=False)
    train(model, dense, range(12), 0.3)  # some have not come yet
    assert np.any(model.classifier.store.stamp.numpy()[:-1] == 0)
    model.compile(LazySGD(0.1, 0.9, 5e-3))
    dense.encoder_momentum[:] = 0
    train(model, dense, range(12, 60), 0.1)
    assert_equal(model, dense)


def test_an_optimizer_of_another_model_is_refused():
    (one, _), (other, _) = make(24, 0.3), make(24, 0.3)
    own = other.lazy_sgd
    with pytest.raises(ValueError, match="expected a LazySGD of its own for each model"):
        other.compile(one.lazy_sgd)
    assert other.lazy_sgd is other.optimizer is own


def test_rows_off_the_device_are_refused():
    schedule = WindowSchedule(SlidingWindow(N, B, 32, 8), 24)
    model, _ = make(24, 0.3, rows_on_device=schedule.rows_on_device)
    first = model.lazy_sgd
    first.iterations.assign(3)
    with pytest.raises(ValueError, match="rows that rest off the device cannot be caught up"):
        model.compile(LazySGD(0.1))
    assert model.lazy_sgd is first


def test_rows_ahead_of_their_optimizer_are_refused():
    model, dense = make(24, 0.3)
    train(model, dense, range(30), 0.3)
    model.optimizer.iterations.assign(0)  # a habit, to begin a schedule anew
    with pytest.raises(ValueError, match="got one at step 0 for rows that have rested since step"):
        train(model, dense, range(30, 31), 0.3)
