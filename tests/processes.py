"""Tests that need a process of their own: TensorFlow's devices and strategies are made once a
process.
"""

import contextlib
import gc
import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple


def with_replicas(count: int, function: Callable, *arguments: Any) -> Any:
    """function(strategy, *arguments) in a process whose CPU is split into `count` replicas.

    Importing TensorFlow takes longer than most of what is asked, so the process stays for the next
    one who asks for as many.
    """
    if count not in _PROCESSES:
        _PROCESSES[count] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    return _PROCESSES[count].submit(_run_with_replicas, count, function, arguments).result()


_PROCESSES: dict[int, ProcessPoolExecutor] = {}


def end_processes() -> None:
    """End the processes that stay for the next one who asks."""
    for process in _PROCESSES.values():
        process.shutdown()
    _PROCESSES.clear()


def _run_with_replicas(count: int, function: Callable, arguments: tuple) -> Any:
    import tf_keras as keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return function(_strategy(count), *arguments)


@lru_cache
def _strategy(count: int):
    import tensorflow as tf

    if count == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float


@contextlib.contextmanager
def commands_that_fork() -> Iterator[Callable[..., Ended]]:
    """A function (module, arguments, environment, limit) that runs `python -m module` in a tenth of
    a second.

    A process that has imported TensorFlow, but not used it, forks one child a command; it stays for
    the next one who asks. No child sees a GPU, whose driver does not survive a fork. After `limit`
    seconds a child is killed.
    """
    if _FORKING not in _PROCESSES:
        spawn = multiprocessing.get_context("spawn")
        _PROCESSES[_FORKING] = ProcessPoolExecutor(1, spawn, _import_everything)
    submit = _PROCESSES[_FORKING].submit
    yield lambda *arguments: submit(_run_in_a_fork, os.getcwd(), *arguments).result()


_FORKING = 0  # no number of replicas


def _import_everything() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()
    import sklearn.decomposition
    import sklearn.manifold  # noqa: F401

    import pic_tf.evals.predictions
    import pic_tf.look.feature_points
    import pic_tf.look.nearest_images
    import pic_tf.training.loop  # noqa: F401

    gc.freeze()


def _run_in_a_fork(
    place: str, module: str, arguments: list[str], environment: dict[str, str], limit: float
) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
        child = multiprocessing.get_context("fork").Process(
            target=_run, args=(place, module, arguments, environment, files)
        )
        start = time.monotonic()
        child.start()
        child.join(limit)
        child.kill()  # where it still runs
        child.join()
        return Ended(
            child.exitcode, *[file.read_text() for file in files], time.monotonic() - start
        )


def _run(
    place: str,
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    files: list[pathlib.Path],
) -> None:
    os.chdir(place)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [os.getcwd(), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
