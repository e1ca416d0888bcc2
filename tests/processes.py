"""Tests that need a process of their own: TensorFlow's devices and strategies are made once a
process.

All of them fork from one process that has imported TensorFlow, but not used it: the import takes
longer than most of what is asked.
"""

import contextlib
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
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


@lru_cache
def forking() -> BaseContext:
    """The context of processes that fork from the one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.imported"])
    with contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(ROOT)  # where it finds tests.imported
        forkserver.ensure_running()
    first = context.Process(target=int)
    first.start()
    first.join()  # when the imports are over, which no limit of a command should include
    return context


def with_replicas(count: int, function: Callable, *arguments: Any) -> Any:
    """function(strategy, *arguments) in a process whose CPU is split into `count` replicas.

    The process stays for the next one who asks for as many.
    """
    if count not in _PROCESSES:
        _PROCESSES[count] = ProcessPoolExecutor(1, forking())
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

    After `limit` seconds its process is killed.
    """
    forking()  # before the clock of the first command runs
    yield _run_in_a_fork


def _run_in_a_fork(
    module: str, arguments: list[str], environment: dict[str, str], limit: float
) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        child, *files = start_in_a_fork(module, arguments, environment, pathlib.Path(folder))
        child.join(limit)
        child.kill()  # where it still runs
        child.join()
        return Ended(
            child.exitcode, *[file.read_text() for file in files], time.monotonic() - start
        )


def start_in_a_fork(
    module: str, arguments: list[str], environment: dict[str, str], folder: pathlib.Path
) -> tuple[BaseProcess, pathlib.Path, pathlib.Path]:
    """The process of a command that runs on, and the files in `folder` with what it says."""
    context, files = forking(), (folder / "stdout", folder / "stderr")
    child = context.Process(target=_run, args=(os.getcwd(), module, arguments, environment, files))
    child.start()
    return child, *files


def _run(
    place: str,
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    files: tuple[pathlib.Path, pathlib.Path],
) -> None:
    os.chdir(place)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [os.getcwd(), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
