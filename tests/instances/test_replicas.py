"""R replicas against dense SGD over the full table in float64, and what crosses between them."""

import numpy as np
import pytest

from pic_tf.data.order import SlidingWindow
from pic_tf.optim.schedules import WarmupCosine
from tests.instances.test_mixing import shares_of
from tests.instances.test_ring import B, N, check, make, train_both
from tests.instances.visits import rates_of, visits
from tests.processes import with_replicas

STEPS = 160


def ids_of_replicas(count, window=32, stride=8):
    """ids [T, B], those of replica 0 first."""
    orders = [SlidingWindow(N, B, window, stride, 3, r, count) for r in range(count)]
    return np.concatenate([visits(order, STEPS) for order in orders], axis=1)


# num_negatives, similarity, temperature, peak learning rate, mixup. Of dot products the largest has
# to be looked for.
CASES = [
    (24, "cosine", 0.2, 0.3, 0.0),
    (24, "dot", 1.0, 0.05, 0.0),
    (N, "cosine", 0.2, 0.3, 0.0),
    (24, "cosine", 0.2, 0.3, 0.5),
]


def equals_dense(strategy, cases):
    for num_negatives, similarity, temperature, rate, mixup in cases:
        schedule = WarmupCosine(rate, STEPS, 32)
        ids = ids_of_replicas(strategy.num_replicas_in_sync)
        with strategy.scope():
            model, dense = make(
                num_negatives,
                schedule,
                similarity=similarity,
                temperature=temperature,
                mixup_probability=mixup,
            )
        rates, shares = rates_of(schedule, STEPS), shares_of(mixup, STEPS)
        both = train_both(model, dense, ids, rates, strategy=strategy, shares=shares)
        check(model, dense, *both)


@pytest.mark.parametrize(
    "count, cases",
    [
        (2, CASES[:1]),
        pytest.param(2, CASES[1:], marks=pytest.mark.slow),
        pytest.param(4, CASES, marks=pytest.mark.slow),
    ],
)
def test_equals_dense(count, cases):
    with_replicas(count, equals_dense, cases)
