"""Models whose rows are paged, and what they are compared with."""

import dataclasses

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.paging.blocks import table_types
from pic_tf.instances.paging.convert import fill_tables
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore
from pic_tf.instances.rows import snapshot
from pic_tf.optim.schedules import WarmupCosine
from tests.instances.test_ring import B, D, N, make
from tests.instances.visits import rates_of, visits

STEPS = 160
SCHEDULE = WarmupCosine(0.3, STEPS, 16)
ENCODER = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32) / 4
# Window, stride, K of N = 96 instances: 20 windows and more, so that every one of these wraps
# around.
WINDOWS = {
    "as usual": (32, 8, 24),
    "K = W": (32, 8, 32),
    "K > W": (16, 8, 40),
    "S = W": (16, 16, 8),
    "N is no multiple of S": (32, 7, 24),
    "a window just small enough": (48, 16, 24),
}


def orders(window, stride, count=1, seed=3):
    return [SlidingWindow(N, B, window, stride, seed, replica, count) for replica in range(count)]


def paged(window, stride, num_negatives, folder, strategy=None, seed=3):
    """A model, the dense reference, and the pager of the model, not opened yet."""
    strategy = strategy or tf.distribute.get_strategy()
    count = strategy.num_replicas_in_sync
    schedules = [
        WindowSchedule(order, num_negatives) for order in orders(window, stride, count, seed)
    ]
    with strategy.scope():
        model, dense = make(num_negatives, SCHEDULE, rows_on_device=schedules[0].rows_on_device)
    stores = [BlockStore(order, folder) for order in orders(window, stride, count, seed)]
    return model, dense, Pager(model.classifier, schedules, stores, strategy)


def ids_of(window, stride, count=1):
    """ids [T, B], those of replica 0 first."""
    of_replicas = orders(window, stride, count)
    return np.concatenate([visits(order, STEPS) for order in of_replicas], axis=1)


def rates():
    return rates_of(SCHEDULE, STEPS)


def rows_of(model, pager=None):
    """The rows of all instances, also those that are in blocks."""
    step = int(model.lazy_sgd.iterations.numpy())
    if pager is None:
        return snapshot(model.classifier, step, model.distribute_strategy)
    pager.flush()
    rows = snapshot(model.classifier, step, model.distribute_strategy, pager.here())
    tables = {name: np.zeros([N, *shape], dtype) for name, (shape, dtype) in table_types(D).items()}
    fill_tables(
        tables,
        rows,
        pager.schedules,
        pager.stores,
        pager.window,
        model.classifier.store.first_weights,
    )
    return dataclasses.replace(rows, **tables, instance_ids=None)


def assert_same_rows(one, other):
    for name in ("weights", "momentum", "stamp", "ring", "head"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
