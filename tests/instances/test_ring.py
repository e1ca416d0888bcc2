"""The ring, its store and LazySGD against dense SGD over the full table in float64."""

import functools
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.first_weights import initial_rows
from pic_tf.instances.rows import snapshot
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.replicas.collectives import distribute
from tests.beginnings import beginnings
from tests.instances.dense import DensePIC
from tests.instances.visits import rates_of, visits

N, D, B, C = 96, 16, 8, 12
# float32 training against float64: 400 steps of rounding at 6e-8 each, amplified by training, stay
# below it (measured: 1e-6 and less); a wrong correction is off by 1e-2 and more.
TOLERANCE = 1e-5


def make(num_negatives, rate, momentum=0.9, weight_decay=5e-3, **kwargs):
    """PIC around a linear encoder, and the dense reference with the same initial weights."""
    encoder = keras.Sequential([keras.Input([C]), keras.layers.Dense(D, use_bias=False)])
    dense = DensePIC(
        encoder.get_weights()[0],
        initial_rows(tf.range(N, dtype=tf.int64), D, 0.01, 0).numpy(),
        num_negatives,
        kwargs.get("temperature", 0.2),
        momentum,
        weight_decay,
        dot=kwargs.get("similarity") == "dot",
        frozen=not kwargs.get("weight_correction", True),
        forget_after=kwargs.get("forget_after", 0),
    )
    model = PIC(encoder, N, num_negatives, head="none", **({"min_row_norm": 0.0} | kwargs))
    model.compile(LazySGD(rate, momentum, weight_decay, max_updates=1000))
    return model, dense


def batches(ids):
    """Fixed noisy observations of N instances: x [T, B, C] float32 for ids [T, B]."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(N, C))
    return (centres[ids] + 0.3 * rng.normal(size=(*ids.shape, C))).astype(np.float32)


def sliding_window(steps, window=32, stride=8):
    return visits(SlidingWindow(N, B, window, stride, seed=3), steps)


def all_rows(model):
    """Weights and momentum of all N rows as of now, wherever they are."""
    step = int(model.lazy_sgd.iterations.numpy())
    rows = snapshot(model.classifier, step, model.distribute_strategy)
    if not model.classifier.weight_correction or model.classifier.store is None:
        return rows.weights, rows.momentum
    strategy, now = (
        model.distribute_strategy,
        (rows.weights, rows.momentum, tf.constant(rows.stamp)),
    )
    catch_up = functools.partial(model.lazy_sgd.caught_up_rows, *now)
    several = strategy.num_replicas_in_sync > 1  # one needs no graph
    caught_up = strategy.run(tf.function(catch_up) if several else catch_up)
    return [strategy.experimental_local_results(x)[0].numpy() for x in caught_up]


def relative(a, b):
    """Largest row error relative to the row's norm."""
    return np.max(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))


def train_both(model, dense, ids, rates, callbacks=(), strategy=None, weights=None, shares=None):
    """(loss, accuracy) of every step of both, the model's through `fit`."""
    results = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_: (
            model.reset_metrics()
        ),  # the mean loss of one step is its loss
        on_train_batch_end=lambda _, logs: results.append((logs["loss"], logs["accuracy"])),
    )
    x = batches(ids)

    def of_replica(replica, count):
        share = slice(replica * B // count, (replica + 1) * B // count)
        batch = (x, ids) if weights is None else (x, ids, weights)
        return tf.data.Dataset.from_tensor_slices(tuple(part[:, share] for part in batch))

    strategy = strategy or tf.distribute.get_strategy()
    data, replicas = distribute(strategy, of_replica), strategy.num_replicas_in_sync
    model.fit(data, epochs=1, steps_per_epoch=len(ids), verbose=0, callbacks=[*callbacks, record])
    weights = [None] * len(ids) if weights is None else weights
    shares = np.zeros(len(ids)) if shares is None else shares
    steps = zip(x, ids, rates, weights, shares)
    return np.array(results), np.array([dense.step(*step, replicas) for step in steps])


def check(model, dense, results, expected):
    weights, momentum = all_rows(model)
    assert relative(weights, dense.rows) < TOLERANCE
    assert relative(momentum, dense.row_momentum) < 10 * TOLERANCE  # its norm is a small difference
    assert relative(model.backbone.get_weights()[0], dense.encoder) < TOLERANCE
    # A small loss is the difference of float32 logits of some ten, which round at 1e-6 each.
    np.testing.assert_allclose(results[:, 0], expected[:, 0], rtol=TOLERANCE, atol=2e-6)
    # The same views are right, but for one whose nearest rival is as near as float32 resolves.
    assert np.sum(np.abs(results[:, 1] - expected[:, 1])) * B < 1.5
    assert (
        expected[-20:, 0].mean() < 0.8 * expected[:20, 0].mean()
    )  # it learned, so the gradients mattered


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sliding_window_with_warmup_and_cosine(jit_compile):
    schedule = WarmupCosine(0.3, 400, 40)
    ids = sliding_window(400)
    model, dense = make(24, schedule)
    model.compile(model.optimizer, jit_compile=jit_compile)
    check(model, dense, *train_both(model, dense, ids, rates_of(schedule, 400)))
    live = model.classifier.ids.numpy()
    assert set(live[live >= 0]) == set(
        np.flatnonzero(dense.recent)
    )  # the ring holds who was here last


def test_learning_rate_set_by_a_callback():
    rng = np.random.default_rng(5)
    rates = (0.3 * rng.uniform(0.05, 1.0, 320)).astype(np.float32)
    model, dense = make(16, 0.3)
    change = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda step, _: model.optimizer.learning_rate.assign(rates[step])
    )
    check(
        model,
        dense,
        *train_both(model, dense, sliding_window(320), rates.astype(np.float64), [change]),
    )


def test_duplicates_in_a_batch_and_revisits_in_the_ring():
    rng = np.random.default_rng(7)
    ids = rng.integers(0, N, (320, B))
    ids[:, 3] = ids[:, 0]  # every batch has an instance twice
    ids[1::2, 5] = ids[::2, 1]  # and one of the batch before
    schedule = WarmupCosine(0.2, 320, 10)
    model, dense = make(32, schedule)
    check(model, dense, *train_both(model, dense, ids, rates_of(schedule, 320)))


@pytest.mark.parametrize("num_negatives", [24, N])
def test_images_of_weight_zero_are_as_if_they_had_not_come(num_negatives):
    """Some of most batches, with repetitions and revisits, once a whole batch."""
    rng = np.random.default_rng(8)
    ids = sliding_window(320)
    ids[::3, 3] = ids[::3, 0]
    weights = (rng.random(ids.shape) > 0.3).astype(np.float32)
    weights[::7] = 1.0
    schedule = WarmupCosine(0.2, 320, 10)
    model, dense = make(num_negatives, schedule)
    rates = rates_of(schedule, 320)
    check(model, dense, *train_both(model, dense, ids, rates, weights=weights))


def test_ring_as_small_as_the_batch():
    schedule = WarmupCosine(0.3, 320, 10)
    model, dense = make(B, schedule)
    check(
        model,
        dense,
        *train_both(model, dense, sliding_window(320), rates_of(schedule, 320)),
    )


# Dot products are not bounded: at the cosine's rate they blow up, and rounding with them.
@pytest.mark.parametrize(
    "similarity, temperature, rate", [("cosine", 0.2, 0.3), ("dot", 1.0, 0.05)]
)
def test_all_instances_equal_the_full_softmax(similarity, temperature, rate):
    schedule = WarmupCosine(rate, 320, 10)
    model, dense = make(N, schedule, similarity=similarity, temperature=temperature)
    check(
        model,
        dense,
        *train_both(model, dense, sliding_window(320), rates_of(schedule, 320)),
    )


def test_without_momentum_and_without_weight_decay():
    ids = sliding_window(320)
    for momentum, weight_decay in ((0.0, 5e-3), (0.9, 0.0)):
        schedule = WarmupCosine(0.5, 320, 10)
        model, dense = make(24, schedule, momentum, weight_decay)
        losses, expected = train_both(model, dense, ids, rates_of(schedule, 320))
        assert relative(all_rows(model)[0], dense.rows) < TOLERANCE
        np.testing.assert_allclose(losses[:, 0], expected[:, 0], rtol=TOLERANCE)


def test_correction_off_is_the_ablation_and_differs():
    schedule = WarmupCosine(0.3, 320, 10)
    ids, rates = sliding_window(320), rates_of(schedule, 320)
    model, dense = make(24, schedule, weight_correction=False)
    check(model, dense, *train_both(model, dense, ids, rates))
    _, exact = make(24, schedule)
    for x, i, rate in zip(batches(ids), ids, rates):
        exact.step(x, i, rate)
    assert relative(all_rows(model)[0], exact.rows) > 0.1


def test_end_of_a_finite_data_set_moves_nothing():
    ids = sliding_window(7)
    data = tf.data.Dataset.from_tensor_slices((batches(ids), ids))

    def nothing_after_a_while():
        time.sleep(0.5)  # what does not wait for the batch has time to run
        yield from ()

    slow_end = tf.data.Dataset.from_generator(
        nothing_after_a_while, output_signature=data.element_spec
    )
    states = []
    model, _ = make(24, WarmupCosine(0.3, 400, 40))
    model.build_optimizers()
    # One never sees the end, the others run into it.
    streams = (data.repeat(), 7), (data, None), (data.concatenate(slow_end), None)
    for _, (stream, steps) in zip(beginnings(model, 3), streams):
        model.fit(stream, epochs=1, steps_per_epoch=steps, verbose=0)
        states.append([v.numpy() for v in state(model)])
    assert int(model.optimizer.iterations) == 7
    for first, *others in zip(*states):
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_graph_equals_eager():
    ids = sliding_window(12)
    states = []
    for eagerly in (False, True):
        keras.utils.set_random_seed(0)
        model, _ = make(24, WarmupCosine(0.3, 400, 40))
        model.compile(model.optimizer, run_eagerly=eagerly)
        model.fit(tf.data.Dataset.from_tensor_slices((batches(ids), ids)), verbose=0)
        states.append([v.numpy() for v in state(model)])
    for one, other in zip(*states):
        # Graph optimisations reorder float32 sums: a few units in the last place a step.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_metrics_say_what_happened():
    ids = sliding_window(40)
    model, dense = make(24, WarmupCosine(0.3, 400, 40))
    x = batches(ids)
    for t in range(40):
        logs = model.fit(x[t], ids[t], batch_size=B, verbose=0, shuffle=False).history
        expected = dense.step(x[t], ids[t], float(WarmupCosine(0.3, 400, 40)(t)))
        assert logs["live_rows"] == [np.count_nonzero(dense.recent)]
        np.testing.assert_allclose(
            logs["loss"], [expected[0]], rtol=1e-5
        )  # float32 against float64
        assert logs["learning_rate"] == [float(WarmupCosine(0.3, 400, 40)(t))]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"num_negatives": 0}, "expected 1 <= num_negatives <= num_instances"),
        ({"num_negatives": 11}, "expected 1 <= num_negatives <= num_instances"),
        ({"temperature": 0.0}, "expected temperature > 0"),
        ({"similarity": "euclidean"}, "expected similarity to be cosine or dot"),
        ({"min_row_norm": -1.0}, "expected min_row_norm >= 0"),
    ],
)
def test_wrong_arguments(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        InstanceClassifier(
            **({"num_instances": 10, "embedding_dim": 4, "num_negatives": 5} | change)
        )


def state(model):
    """Every variable that decides the future of a model."""
    classifier = model.classifier
    rows = [classifier.weights_ring, classifier.momentum_ring, classifier.ids, classifier.head]
    store = [classifier.store.weights, classifier.store.momentum, classifier.store.stamp]
    return [
        *model.trainable_variables,
        *rows,
        *store,
        *model.optimizer.variables,
        model.optimizer.history.products,
    ]
