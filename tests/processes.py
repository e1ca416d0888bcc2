"""Tests that need a process of their own: TensorFlow's devices and strategies are made once a process."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def with_replicas(count: int, function: Callable, *arguments: Any) -> Any:
    """function(strategy, *arguments) in a new process whose CPU is split into `count` replicas."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_start, count, function, arguments).result()


def _start(count: int, function: Callable, arguments: tuple) -> Any:
    import tensorflow as tf
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    if count == 1:
        return function(tf.distribute.get_strategy(), *arguments)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return function(tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)]), *arguments)
