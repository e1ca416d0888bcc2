"""Write and read blocks of rows while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class IOThread:
    """One thread that writes and reads in the order of the calls.

    So a block to be read later has been written by then. A write that failed is reported by every
    `check` and `flush` from then on, a read that failed by `result`.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "pager")
        self._writes: list[Future] = []
        self._read: Future | None = None

    def write(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function that writes, later."""
        self._writes.append(self._thread.submit(function, *arguments))

    def read(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function that reads, later; `result` gives its result."""
        self._read = self._thread.submit(function, *arguments)

    def result(self) -> Any:
        """Wait for the last `read`, and return its result, or raise its error."""
        return self._read.result()

    def check(self) -> None:
        """Raise the error of a write that has failed; wait for none."""
        pending = []
        for write in self._writes:
            if write.done():
                write.result()
            else:
                pending.append(write)
        self._writes = pending

    def flush(self) -> None:
        """Wait until everything is written, and raise the error of a write that has failed."""
        for write in self._writes:
            write.result()
        self._writes = []

    def close(self) -> None:
        """Wait for everything under way."""
        self._thread.shutdown()
