"""Mixed views against loops, and training with them against dense SGD in float64."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.instances.mixing import draw_share, mix, partners_of
from pic_tf.optim.schedules import WarmupCosine
from tests.instances.test_ring import N, check, make, sliding_window, train_both
from tests.instances.visits import rates_of

STEPS = 160


def shares_of(probability: float, steps: int, seed: int = 0) -> np.ndarray:
    """Shares of the second images in the steps of a run, float32 [steps]."""
    share_of = functools.partial(draw_share, probability, seed)
    every_step = tf.range(steps, dtype=tf.int64)
    in_graph = tf.function(functools.partial(tf.map_fn, share_of, fn_output_signature=tf.float32))
    return in_graph(every_step).numpy()


def test_a_share_follows_from_seed_and_step():
    shares = shares_of(0.5, 2000)
    mixed = shares[shares > 0]
    # Four standard deviations of a share of 2,000, and of the mean and the square of a uniform.
    assert abs(len(mixed) / 2000 - 0.5) < 4 * 0.5 / 2000**0.5
    assert abs(mixed.mean() - 1 / 4) < 4 * 0.5 / (12 * len(mixed)) ** 0.5
    assert abs((mixed**2).mean() - 1 / 12) < 4 * 0.25 * (4 / 45 / len(mixed)) ** 0.5
    assert mixed.max() < 0.5
    np.testing.assert_array_equal(shares[:50], shares_of(0.5, 50))
    assert not np.array_equal(shares[:50], shares_of(0.5, 50, seed=1))
    assert np.count_nonzero(shares_of(1.0, 50)) == 50 and not np.any(shares_of(0.0, 50))
    eager = functools.partial(draw_share, 0.5, 0)
    for share_of in (eager, tf.function(eager, jit_compile=True)):
        np.testing.assert_array_equal(
            [share_of(step) for step in tf.range(10, dtype="int64")], shares[:10]
        )


@pytest.mark.parametrize("views_of_an_image", [1, 3])
def test_views_are_mixed_with_those_of_the_mirror_image(views_of_an_image):
    n, b = views_of_an_image, 5  # the third image is its own partner
    views = np.random.default_rng(0).normal(size=(b * n, 4, 4, 3)).astype(np.float32)
    weights = np.array([1.0, 0.5, 1.0, 0.0, 1.0], np.float32)
    slots, share = tf.range(10, 15, dtype=tf.int64), tf.constant(0.3)
    partners = partners_of(slots, weights, share)
    np.testing.assert_array_equal(partners.slots, [14, 13, 12, 11, 10])
    np.testing.assert_allclose(partners.share, [0.3, 0.0, 0.3, 0.0, 0.3])  # not with weight 0
    expected = np.empty_like(views)
    for image in range(b):
        for view in range(n):
            c = float(partners.share[image])
            other = views[(b - 1 - image) * n + view]
            expected[image * n + view] = (1 - c) * views[image * n + view] + c * other
    mixed = mix(tf.constant(views), partners.share)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-7)  # rounding of a sum of two


def test_integers_are_mixed_as_floats():
    views = tf.reshape(tf.constant([0, 60, 120, 180], tf.uint8), [4, 1, 1, 1])
    mixed = mix(views, tf.fill([4], 0.25))
    np.testing.assert_array_equal(np.ravel(mixed), [45.0, 75.0, 105.0, 135.0])


@pytest.mark.parametrize("num_negatives, jit_compile", [(24, False), (24, True), (N, False)])
def test_training_equals_dense(num_negatives, jit_compile):
    schedule = WarmupCosine(0.3, STEPS, 16)
    ids = sliding_window(STEPS)
    weights = (np.random.default_rng(2).random(ids.shape) > 0.1).astype(np.float32)
    weights[:, 0] = 1.0  # no step without images
    model, dense = make(num_negatives, schedule, mixup_probability=0.7, seed=0)
    model.compile(model.optimizer, jit_compile=jit_compile)
    rates, shares = rates_of(schedule, STEPS), shares_of(0.7, STEPS)
    both = train_both(model, dense, ids, rates, weights=weights, shares=shares)
    check(model, dense, *both)


def test_a_probability_is_one():
    with pytest.raises(ValueError, match=r"expected 0 <= mixup_probability <= 1, got 1\.5"):
        make(24, 0.1, mixup_probability=1.5)
