"""LazySGD with a trust coefficient against LARS in NumPy float64, one tensor at a time."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine

MOMENTUM, DECAY, TRUST, STEPS = 0.8, 1e-2, 0.02, 40
SCHEDULE = WarmupCosine(0.5, STEPS, 5)  # a rate that changes, to tell momentum outside from momentum inside it
SHAPES = [(3, 3, 2, 4), (5, 4), (2, 1), (4,), ()]


def lars(weights, gradients, adapted=True):
    """w after all updates, as the docstring of LazySGD has it."""
    w, u = weights, np.zeros_like(weights)
    for t, g in enumerate(gradients):
        direction = g + DECAY * w
        if adapted and w.ndim < 2:
            direction = g
        elif adapted:
            length, norm = math.sqrt(np.sum(direction**2)), math.sqrt(np.sum(w**2))
            if length > 0 and norm > 0:
                direction = direction * (TRUST * norm / length)
        u = MOMENTUM * u + direction
        w = w - float(SCHEDULE(t)) * u
    return w


def lazy_sgd(weights, gradients, adapt_only=None, decay=DECAY):
    """The same for several tensors: weights [tensor], gradients [step][tensor]; `adapt_only` by number."""
    optimizer = LazySGD(SCHEDULE, MOMENTUM, decay, max_updates=STEPS, trust_coefficient=TRUST)
    variables = [tf.Variable(w, dtype=tf.float32) for w in weights]
    if adapt_only is not None:
        optimizer.adapt_only([variables[i] for i in adapt_only])
    for of_step in gradients:
        optimizer.apply_gradients([(tf.constant(g, tf.float32), v) for g, v in zip(of_step, variables)])
    return [v.numpy() for v in variables]


def numbers(shapes):
    """Weights [tensor], of sizes that differ, and gradients [step][tensor]; float32 holds them exactly."""
    rng = np.random.default_rng(0)

    def draw(scale, shape):
        return scale * rng.normal(size=shape).astype(np.float32).astype(np.float64)

    weights = [draw(2.0**i, shape) for i, shape in enumerate(shapes)]
    return weights, [[draw(1.0, shape) for shape in shapes] for _ in range(STEPS)]


def check(results, weights, gradients, adapted):
    for i, (result, w) in enumerate(zip(results, weights)):
        expected = lars(w, [of_step[i] for of_step in gradients], adapted[i])
        assert np.max(np.abs(expected - w)) > 0.01 * np.max(np.abs(w))  # it moved
        # float32: 40 steps of rounding at 6e-8; a tensor treated the other way is off by a quarter and more.
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.max(np.abs(expected)))


def test_every_rank():
    weights, gradients = numbers(SHAPES)
    check(lazy_sgd(weights, gradients), weights, gradients, [True] * len(SHAPES))


def test_confined_to_some_variables():
    """The others follow Eq. 2, biases with decay among them."""
    weights, gradients = numbers(SHAPES)
    check(lazy_sgd(weights, gradients, [0, 3]), weights, gradients, [True, False, False, True, False])
    check(lazy_sgd(weights, gradients, []), weights, gradients, [False] * len(SHAPES))


def test_the_size_of_the_gradient_does_not_matter():
    """Without decay the path depends on the gradient's direction alone."""
    weights, gradients = numbers([(5, 4)])
    larger = [[2.0**20 * g for g in of_step] for of_step in gradients]
    (one,), (other,) = (lazy_sgd(weights, g, decay=0.0) for g in (gradients, larger))
    np.testing.assert_allclose(one, other, rtol=1e-6)  # a power of 2 changes no digit of float32
    assert np.max(np.abs(one - weights[0])) > 0.1


def test_zero_gradients_leave_the_decay():
    """Direction lambda w, brought to the length c |w|, is c w: a matrix shrinks, a bias rests."""
    weights, gradients = numbers([(5, 4), (4,)])
    gradients = [[0.0 * g for g in of_step] for of_step in gradients]
    matrix, bias = lazy_sgd(weights, gradients)
    factor, speed = 1.0, 0.0
    for t in range(STEPS):
        speed = MOMENTUM * speed + TRUST * factor
        factor -= float(SCHEDULE(t)) * speed
    assert factor < 0.5
    np.testing.assert_allclose(matrix, factor * weights[0], rtol=1e-5)  # 40 steps of float32
    np.testing.assert_array_equal(bias, weights[1])
    at_rest, _ = lazy_sgd(weights, gradients, decay=0.0)  # nothing to bring to any length
    np.testing.assert_array_equal(at_rest, weights[0])


def test_zero_weights_take_the_gradient_as_it_is():
    """c |w| = 0 would hold them at zero for good."""
    _, gradients = numbers([(5, 4)])
    weights = [np.zeros((5, 4))]
    (first,) = lazy_sgd(weights, gradients[:1])
    np.testing.assert_allclose(first, -float(SCHEDULE(0)) * gradients[0][0], rtol=1e-6)  # one float32 product
    check(lazy_sgd(weights, gradients), weights, gradients, [True])  # and then as any other


@pytest.mark.parametrize("coefficient", [0.0, -1e-3, math.nan])
def test_wrong_coefficients(coefficient):
    with pytest.raises(ValueError, match="expected trust_coefficient > 0, or None for plain SGD, got"):
        LazySGD(0.1, trust_coefficient=coefficient)


def test_config_keeps_the_coefficient():
    config = LazySGD(0.1, max_updates=10, trust_coefficient=TRUST).get_config()
    assert LazySGD.from_config(config).trust_coefficient == TRUST
