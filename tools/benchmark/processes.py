"""Measure in processes of their own, and end with a sentence where that fails."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NoReturn

import tensorflow as tf


def in_own_process(function: Callable, *arguments: Any) -> Any:
    """Run a function in a fresh process, whose memory is free again afterwards.

    All measuring is done in such processes: the peak memory of a process starts from that of the
    process that started it (Linux, ru_maxrss), which must therefore stay small.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *arguments).result()
    except (BrokenProcessPool, tf.errors.ResourceExhaustedError):
        fail(
            "expected enough memory for all tables, "
            "got stopped by the system: use smaller --instances"
        )


def fail(sentence: str) -> NoReturn:
    """End the benchmark with a sentence on standard error."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)
