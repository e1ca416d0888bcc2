"""LARS against NumPy in float64, one tensor at a time."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lars import LARS
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC

MOMENTUM, DECAY, TRUST, STEPS = 0.8, 1e-2, 0.02, 40
SCHEDULE = WarmupCosine(
    0.5, STEPS, 5
)  # a rate that changes, to tell momentum outside from momentum inside it
SHAPES = [(3, 3, 2, 4), (5, 4), (2, 1), (4,), ()]


def lars(weights, gradients, adapted=True):
    """w after all updates, as the docstring of LARS has it."""
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


def trained(weights, gradients, adapted=None, decay=DECAY):
    """The same for several tensors: weights [tensor], gradients [step][tensor]; those not
    `adapted` follow LazySGD.
    """
    optimizers = (
        LARS(SCHEDULE, MOMENTUM, decay, TRUST),
        LazySGD(SCHEDULE, MOMENTUM, decay, max_updates=STEPS),
    )
    variables = [tf.Variable(w, dtype=tf.float32) for w in weights]
    adapted = [True] * len(weights) if adapted is None else adapted
    for of_step in gradients:
        pairs = [(tf.constant(g, tf.float32), v) for g, v in zip(of_step, variables)]
        for optimizer, wanted in zip(optimizers, (True, False)):
            optimizer.apply_gradients(
                [pair for pair, is_adapted in zip(pairs, adapted) if is_adapted == wanted]
            )
    return [v.numpy() for v in variables]


def numbers(shapes):
    """Weights [tensor], of sizes that differ, and gradients [step][tensor]; float32 holds them
    exactly.
    """
    rng = np.random.default_rng(0)

    def draw(scale, shape):
        return scale * rng.normal(size=shape).astype(np.float32).astype(np.float64)

    weights = [draw(2.0**i, shape) for i, shape in enumerate(shapes)]
    return weights, [[draw(1.0, shape) for shape in shapes] for _ in range(STEPS)]


def check(results, weights, gradients, adapted):
    for i, (result, w) in enumerate(zip(results, weights)):
        expected = lars(w, [of_step[i] for of_step in gradients], adapted[i])
        assert np.max(np.abs(expected - w)) > 0.01 * np.max(np.abs(w))  # it moved
        # float32: 40 steps of rounding at 6e-8; a tensor treated the other way is off by a quarter
        # and more.
        np.testing.assert_allclose(
            result, expected, rtol=1e-5, atol=1e-5 * np.max(np.abs(expected))
        )


def test_every_rank():
    weights, gradients = numbers(SHAPES)
    check(trained(weights, gradients), weights, gradients, [True] * len(SHAPES))


@pytest.mark.parametrize("adapted", [[True, False, False, True, False], [False] * len(SHAPES)])
def test_beside_lazy_sgd(adapted):
    """The others follow Eq. 2, biases with decay among them."""
    weights, gradients = numbers(SHAPES)
    check(trained(weights, gradients, adapted), weights, gradients, adapted)


def test_the_backbone_of_pic_alone():
    """After one step u is the direction: LARS' for the backbone, Eq. 2's for head and rows."""
    momentum = []
    for backbone_optimizer in (None, LARS(0.1, MOMENTUM, DECAY, TRUST)):
        keras.utils.set_random_seed(0)
        backbone = keras.Sequential(
            [keras.Input([6]), keras.layers.Dense(5, "relu"), keras.layers.Dense(4)]
        )
        model = PIC(backbone, 12, num_negatives=8, hidden_dim=8, embedding_dim=4)
        model.compile(LazySGD(0.1, MOMENTUM, DECAY, max_updates=1), backbone_optimizer)
        model.build_optimizers()
        weights = [v.numpy().astype(np.float64) for v in backbone.trainable_variables]
        images = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
        model.train_on_batch(images, np.arange(4))
        of_network = [
            *(backbone_optimizer.momentums if backbone_optimizer else []),
            *model.lazy_sgd.momentums,
        ]
        momentum.append([v.numpy() for v in (*of_network, model.classifier.momentum_ring)])
    plain, with_lars = momentum
    for w, u, result in zip(weights, plain, with_lars):
        direction = u.astype(np.float64)  # g + lambda w
        expected = (
            direction * TRUST * np.linalg.norm(w) / np.linalg.norm(direction)
            if w.ndim > 1
            else u - DECAY * w
        )
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-9)  # norms in float32
    assert len(plain) == len(with_lars) == 4 + 4 + 1
    for one, other in zip(plain[4:], with_lars[4:]):
        np.testing.assert_array_equal(one, other)


def test_the_size_of_the_gradient_does_not_matter():
    """Without decay the path depends on the gradient's direction alone."""
    weights, gradients = numbers([(5, 4)])
    larger = [[2.0**20 * g for g in of_step] for of_step in gradients]
    (one,), (other,) = (trained(weights, g, decay=0.0) for g in (gradients, larger))
    np.testing.assert_allclose(one, other, rtol=1e-6)  # a power of 2 changes no digit of float32
    assert np.max(np.abs(one - weights[0])) > 0.1


def test_zero_gradients_leave_the_decay():
    """Direction lambda w, brought to the length c |w|, is c w: a matrix shrinks, a bias rests."""
    weights, gradients = numbers([(5, 4), (4,)])
    gradients = [[0.0 * g for g in of_step] for of_step in gradients]
    matrix, bias = trained(weights, gradients)
    factor, speed = 1.0, 0.0
    for t in range(STEPS):
        speed = MOMENTUM * speed + TRUST * factor
        factor -= float(SCHEDULE(t)) * speed
    assert factor < 0.5
    np.testing.assert_allclose(matrix, factor * weights[0], rtol=1e-5)  # 40 steps of float32
    np.testing.assert_array_equal(bias, weights[1])
    at_rest, _ = trained(weights, gradients, decay=0.0)  # nothing to bring to any length
    np.testing.assert_array_equal(at_rest, weights[0])


def test_zero_weights_take_the_gradient_as_it_is():
    """c |w| = 0 would hold them at zero for good."""
    _, gradients = numbers([(5, 4)])
    weights = [np.zeros((5, 4))]
    (first,) = trained(weights, gradients[:1])
    np.testing.assert_allclose(
        first, -float(SCHEDULE(0)) * gradients[0][0], rtol=1e-6
    )  # one float32 product
    check(trained(weights, gradients), weights, gradients, [True])  # and then as any other


def test_a_skipped_step_moves_nothing():
    """Neither weights nor momentum, whatever the gradient is; the steps after it go on from
    there.
    """
    variable = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = LARS(0.1, MOMENTUM, DECAY, TRUST)
    optimizer.apply_gradients([(tf.ones([2, 2]), variable)])
    before = variable.numpy(), optimizer.momentums[0].numpy()
    optimizer.skip_unless(tf.constant(False))
    optimizer.apply_gradients([(tf.fill([2, 2], math.nan), variable)])
    for value, now in zip(before, (variable, optimizer.momentums[0])):
        np.testing.assert_array_equal(now, value)
    assert int(optimizer.iterations) == 2
    optimizer.skip_unless(tf.constant(True))
    optimizer.apply_gradients([(tf.ones([2, 2]), variable)])
    assert np.all(variable.numpy() < before[0])


@pytest.mark.parametrize("coefficient", [0.0, -1e-3, math.nan])
def test_wrong_coefficients(coefficient):
    with pytest.raises(ValueError, match="expected trust_coefficient > 0, got"):
        LARS(0.1, trust_coefficient=coefficient)


def test_config_round_trip():
    optimizer = LARS(SCHEDULE, MOMENTUM, DECAY, TRUST)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config() and again.trust_coefficient == TRUST
