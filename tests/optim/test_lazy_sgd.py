"""LazySGD against Eq. 2 in float64, and its schedule."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine


def test_dense_updates_and_rows_at_rest():
    schedule = WarmupCosine(0.5, 50, 5)
    optimizer = LazySGD(schedule, momentum=0.8, weight_decay=1e-2, max_updates=50)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3))
    variable = tf.Variable(start.astype(np.float32))
    w, u = start.astype(np.float32).astype(np.float64), np.zeros((4, 3))
    resting_w, resting_u, rested = w.copy(), rng.normal(size=(4, 3)), 17
    for t in range(50):
        gradient = rng.normal(size=(4, 3))
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        rate = float(schedule(t))
        u = 0.8 * u + (gradient + 1e-2 * w)
        w = w - rate * u
        if t >= rested:
            resting_u = 0.8 * resting_u + 1e-2 * resting_w
            resting_w = resting_w - rate * resting_u
        if t == rested - 1:
            away = tf.constant(resting_w, tf.float32), tf.constant(resting_u, tf.float32)
    np.testing.assert_allclose(variable, w, rtol=1e-5, atol=1e-6)  # 50 steps in float32
    back = optimizer.caught_up_rows(*away, tf.fill([4], tf.constant(rested, tf.int64)))
    for row, expected in zip(back, (resting_w, resting_u)):
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-7)  # one float32 product


def test_rows_beside_the_network_follow_the_same_equation():
    optimizer = LazySGD(0.3, momentum=0.9, weight_decay=1e-3, max_updates=10)
    rng = np.random.default_rng(1)
    w, u, g = (rng.normal(size=(5, 2)) for _ in range(3))
    weights, momentum = (tf.Variable(x, dtype=tf.float32) for x in (w, u))
    optimizer.update(tf.constant(g, tf.float32), tf.constant(w, tf.float32), weights, momentum)
    u = 0.9 * u + (g + 1e-3 * w)
    np.testing.assert_allclose(momentum, u, rtol=1e-5, atol=1e-6)  # float32
    np.testing.assert_allclose(weights, w - 0.3 * u, rtol=1e-5, atol=1e-6)


def test_config_round_trip():
    optimizer = LazySGD(WarmupCosine(0.1, 10, 2, 1e-3), 0.7, 2e-4, 10)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert float(again._learning_rate(5)) == float(WarmupCosine(0.1, 10, 2, 1e-3)(5))


def test_schedule_by_hand():
    schedule = WarmupCosine(1.0, 110, 10, end=0.2)
    expected = {0: 0.01, 5: 0.505, 10: 1.0, 60: 0.6, 110: 0.2, 500: 0.2}
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)  # float32 result
    assert float(schedule(2**24 + 1)) == np.float32(0.2)
    far = WarmupCosine(1.0, 2**26)
    assert float(far(2**25 + 200_000)) < float(
        far(2**25)
    )  # a float32 counter would still rise in steps


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: LazySGD(0.1, momentum=1.0), "expected 0 <= momentum < 1"),
        (lambda: LazySGD(0.1, weight_decay=-1.0), "expected weight_decay >= 0"),
        (lambda: WarmupCosine(0.1, 10, 10), "expected 0 <= warmup_steps < total_steps"),
        (lambda: WarmupCosine(0.0, 10), "expected peak > 0"),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
