"""Write and read blocks of rows while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class IOThread:
    """One thread that does what it is told, in this order: a block that is to be read later has
    been written by then.

    A write that failed is reported by every `check` and `flush` from then on, a read that failed by
    `result`.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "pager")
        self._writes: list[Future] = []
        self._read: Future | None = None

    def write(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function that writes, later."""
        self._writes.append(self._thread.submit(function, *arguments))

    def read(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function that reads, later; `result` returns what it returned."""
        self._read = self._thread.submit(function, *arguments)

    def result(self) -> Any:
        """Wait for the last `read`, and return what it returned, or raise what it raised."""
        return self._read.result()

    def check(self) -> None:
        """Raise what a write has raised; waits for none."""
        pending = []
        for write in self._writes:
            if write.done():
                write.result()
            else:
                pending.append(write)
        self._writes = pending

    def flush(self) -> None:
        """Wait until everything is written, and raise what a write has raised."""
        for write in self._writes:
            write.result()
        self._writes = []

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
