"""Instance rows from one number of replicas to another."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.restore_rows import restore, slots_of_replicas
from pic_tf.instances.rows import RowSnapshot, snapshot
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.replicas.collectives import distribute
from tests.instances.test_ring import batches
from tests.processes import with_replicas

N, D, B, C = 51, 8, 8, 12  # N is a multiple of neither 2 nor 4
RING, FULL = 24, N  # K
BEFORE, AFTER = 41, 20  # steps; a new window begins with step 40, so that the ring has empty slots


# --- slots_of_replicas, by hand ---

# ring, head, replicas, slots of each -> slots of replicas, head of each
GOLDEN = {
    "same number of replicas": ([0, 1, 4, 3, 2, 5], 2, 2, 3, [[0, 4, 2], [1, 3, 5]], 1),
    "same, with empty slots": ([0, -1, -1, 3, 2, 5], 4, 2, 3, [[0, -1, 2], [-1, 3, 5]], 2),
    "a divisor: 4 -> 2": ([4, 1, 2, 7, 0, 5, -1, 3], 4, 2, 4, [[4, 2, 0, -1], [1, 7, 5, 3]], 2),
    "a divisor: 2 -> 1": ([0, 1, 4, 3], 2, 1, 4, [[0, 1, 4, 3]], 2),
    "a divisor, slots for one id more than there are": (
        [0, 1, 2, 3, 4, -1],
        0,
        1,
        5,
        [[0, 1, 2, 3, 4]],
        0,
    ),
    # Oldest first 4 3 2 5 0 1: all fit, two for each.
    "2 -> 3": ([0, 1, 4, 3, 2, 5], 2, 3, 2, [[3, 0], [4, 1], [2, 5]], 0),
    # Oldest first 1 3 5 0 7 2: of the odd ones 1 is too old, of the even ones there are too few.
    "1 -> 2": ([7, 2, 1, 3, 5, 0], 2, 2, 3, [[-1, 0, 2], [3, 5, 7]], 0),
    # The head, slot 1, is no slot's of replica 0: the ids are where they belong, their age is not.
    "1 -> 2, only the head is off": ([0, 1, 2, 3], 1, 2, 2, [[2, 0], [1, 3]], 0),
    # Oldest first 8 6 4 2: only the two newest find a place.
    "1 -> 2, all of one residue": ([4, 2, 8, 6], 2, 2, 2, [[4, 2], [-1, -1]], 0),
    "nothing there yet": ([-1] * 4, 0, 2, 2, [[-1, -1], [-1, -1]], 0),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_slots_by_hand(case):
    ring, head, count, slots, expected, expected_head = GOLDEN[case]
    shared, head = slots_of_replicas(np.array(ring), head, count, slots)
    np.testing.assert_array_equal(shared, expected)
    assert head == expected_head


def random_ring(rng, count, slots):
    """A ring as `snapshot` gives it: slot p R + r holds an id of residue r or none, no id is
    there twice.
    """
    own = [rng.permutation(np.arange(r, 3 * count * slots, count))[:slots] for r in range(count)]
    ring = np.stack(own, axis=1).reshape(-1)
    ring[rng.random(len(ring)) < rng.choice([0.0, 0.2, 0.9])] = -1
    return ring, count * int(rng.integers(slots))


def test_slots_of_random_rings():
    rng = np.random.default_rng(0)
    pushed_out = 0
    for _ in range(2000):
        before, count = rng.integers(1, 7, size=2)
        ring, head = random_ring(rng, before, int(rng.integers(1, 9)))
        slots = -(-len(ring) // count)  # as many slots in all, or where K = N a few more
        shared, new_head = slots_of_replicas(ring, head, count, slots)
        assert shared.shape == (count, slots) and 0 <= new_head < slots
        by_age = [i for i in [*ring[head:], *ring[:head]] if i >= 0]
        for replica, own in enumerate(shared):
            candidates = [i for i in by_age if i % count == replica]
            kept = [i for i in [*own[new_head:], *own[:new_head]] if i >= 0]
            assert (
                kept == candidates[-slots:]
            )  # its own, the newest, once each and in the order of age
            pushed_out += len(candidates) - len(kept)
        if before % count == 0:
            np.testing.assert_array_equal(shared.T.reshape(-1), ring)  # every slot as it was
            assert new_head * count == head
    assert pushed_out > 100  # the interesting case was among them


# --- snapshot and restore ---


def make(strategy, num_negatives):
    """PIC around a linear encoder."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        encoder = keras.Sequential([keras.Input([C]), keras.layers.Dense(D, use_bias=False)])
        model = PIC(encoder, N, num_negatives, head="none")
        optimizer = LazySGD(
            WarmupCosine(0.3, BEFORE + AFTER, 10), 0.9, 5e-3, max_updates=BEFORE + AFTER
        )
        model.compile(optimizer)
        model.build_optimizers()
    return model


def visits(count, first, steps):
    """x [T, B, C] and ids [T, B], as many of each replica's a step."""
    orders = [SlidingWindow(N, B, 32, 8, 3, r, count) for r in range(count)]
    ids = [
        [i for order in orders for i in order.instance_ids(t).numpy()]
        for t in range(first, first + steps)
    ]
    return batches(np.array(ids)), np.array(ids)


def train(model, strategy, x, ids):
    """The loss of every step."""
    losses = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_: (
            model.reset_metrics()
        ),  # the mean loss of one step is its loss
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"]),
    )

    def of_replica(replica, count):
        own = ids % count == replica
        shape = len(ids), B // count
        return tf.data.Dataset.from_tensor_slices(
            (x[own].reshape(*shape, C), ids[own].reshape(shape))
        )

    model.fit(
        distribute(strategy, of_replica), steps_per_epoch=len(ids), verbose=0, callbacks=[record]
    )
    return np.array(losses)


def network_variables(model):
    optimizer = model.lazy_sgd
    return [
        *model.backbone.variables,
        *optimizer.momentums,
        optimizer.iterations,
        optimizer.history.products,
    ]


@dataclasses.dataclass
class State:
    """All that decides the future of a model."""

    rows: RowSnapshot
    network: list[np.ndarray]


def save(model, strategy):
    rows = snapshot(model.classifier, int(model.lazy_sgd.iterations.numpy()), strategy)
    return State(rows, [v.numpy() for v in network_variables(model)])


def load(state, strategy, num_negatives):
    model = make(strategy, num_negatives)
    restore(state.rows, model.classifier, strategy)
    for variable, value in zip(network_variables(model), state.network):
        variable.assign(value)
    return model


def of_replicas(strategy, classifier):
    """Variables that decide the future, replica by replica: [(ids, head, live rows ..., resting
    rows ...)].
    """
    store = (
        [] if classifier.store is None else [classifier.store.weights, classifier.store.momentum]
    )
    store += [] if classifier.store is None else [classifier.store.stamp]
    variables = [
        classifier.ids,
        classifier.head,
        classifier.weights_ring,
        classifier.momentum_ring,
        *store,
    ]
    local = [
        [v.numpy() for v in strategy.experimental_local_results(variable)] for variable in variables
    ]
    results = []
    for replica, (ids, head, weights, momentum, *tables) in enumerate(zip(*local)):
        own = np.arange(replica, N, strategy.num_replicas_in_sync)
        resting = np.flatnonzero(~np.isin(own, ids))
        results.append(
            (
                ids,
                head,
                weights[ids >= 0],
                momentum[ids >= 0],
                *(table[resting] for table in tables),
            )
        )
    return results


def check_round_trip(model, strategy):
    """Collected and placed again into a fresh model, every variable is bit for bit what it was."""
    state = save(model, strategy)
    again = load(state, strategy, model.classifier.num_negatives)
    pairs = zip(of_replicas(strategy, model.classifier), of_replicas(strategy, again.classifier))
    for replica, (before, after) in enumerate(pairs):
        np.testing.assert_array_equal(
            state.rows.ring[replica :: strategy.num_replicas_in_sync], before[0]
        )
        for one, other in zip(before, after):
            np.testing.assert_array_equal(one, other)
    if model.classifier.store is not None:  # or it would show nothing
        assert state.rows.head > 0 and len(set(state.rows.stamp)) > 2
    return again


def in_two(strategy, num_negatives):
    """The state after training with 2 replicas, and the losses from there on."""
    model = make(strategy, num_negatives)
    train(model, strategy, *visits(2, 0, BEFORE))
    again = check_round_trip(model, strategy)
    state, more = save(model, strategy), visits(2, BEFORE, AFTER)
    losses = train(model, strategy, *more)
    # The same variables, the same operations: the same losses.
    np.testing.assert_array_equal(train(again, strategy, *more), losses)
    return state, losses


def in_four(strategy, num_negatives, before):
    """The state that 4 replicas make of it, and the losses from there on."""
    model = load(before, strategy, num_negatives)
    return save(model, strategy), train(model, strategy, *visits(4, BEFORE, AFTER))


@pytest.fixture(scope="module", params=[RING, pytest.param(FULL, marks=pytest.mark.slow)])
def num_negatives(request):
    return request.param


@pytest.fixture(scope="module")
def of_two(num_negatives):
    return with_replicas(2, in_two, num_negatives)


@pytest.fixture(scope="module")
def of_four(of_two, num_negatives):
    return with_replicas(4, in_four, num_negatives, of_two[0])


def check_same_rows(rows, expected):
    for name in ("weights", "momentum", "stamp"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))


def live(rows):
    return set(rows.ring[rows.ring >= 0])


def test_two_replicas_to_one(of_two, num_negatives):
    state, losses = of_two
    strategy = tf.distribute.get_strategy()
    model = load(state, strategy, num_negatives)
    rows = save(model, strategy).rows
    check_same_rows(rows, state.rows)
    assert live(rows) == live(state.rows)
    assert (state.rows.ring < 0).any()  # slots that are empty made no difference
    assert (rows.stamp[list(live(rows))] == BEFORE).all()
    # float32 sums in another order: 20 steps of rounding at 6e-8; another set of live rows shows at
    # 1e-2.
    np.testing.assert_allclose(train(model, strategy, *visits(2, BEFORE, AFTER)), losses, rtol=1e-5)
    check_round_trip(model, strategy)


@pytest.mark.slow
def test_two_replicas_to_four_to_one(of_two, of_four, num_negatives):
    before, (state, losses) = of_two[0], of_four
    check_same_rows(
        state.rows, before.rows
    )  # those pushed out as well: their stamp says as of when they are
    pushed_out = live(before.rows) - live(state.rows)
    assert live(state.rows) <= live(before.rows) and bool(pushed_out) == (num_negatives == RING)
    assert (state.rows.stamp[list(pushed_out)] == BEFORE).all()
    strategy = tf.distribute.get_strategy()
    model = load(state, strategy, num_negatives)
    # As above.
    np.testing.assert_allclose(train(model, strategy, *visits(4, BEFORE, AFTER)), losses, rtol=1e-5)


@pytest.mark.parametrize("shape", [(N - 1, D), (N, D + 1)])
def test_rows_of_another_size(shape):
    strategy = tf.distribute.get_strategy()
    model = make(strategy, RING)
    rows = snapshot(model.classifier, 0, strategy)
    with pytest.raises(ValueError, match=r"expected rows \[51, 8\], got"):
        restore(
            dataclasses.replace(rows, weights=np.zeros(shape, np.float32)),
            model.classifier,
            strategy,
        )


def test_rows_of_another_number_of_negatives_are_refused():
    strategy = tf.distribute.get_strategy()
    rows = snapshot(make(strategy, 24).classifier, 0, strategy)
    with pytest.raises(ValueError, match=f"expected rows of {N} negatives, got rows of 24"):
        restore(rows, make(strategy, N).classifier, strategy)
