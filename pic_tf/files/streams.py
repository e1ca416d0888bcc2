"""Go on where nobody reads what a command writes: closed streams, pipes and terminals that go."""

import io
import os
import sys


class _Forgiving(io.FileIO):
    """A stream whose reader may go away; what is written from then on is lost, and nothing else."""

    def write(self, data) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def open_closed_streams() -> None:
    """Open standard streams that the process was started without.

    Otherwise the first files that it opens take their numbers, and whatever a library writes to
    standard error goes into a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def outlive_readers() -> None:
    """Let writing to standard output and error never fail, in this process."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        stream.flush()
        raw = _Forgiving(number, "w", closefd=False)
        forgiving = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, forgiving)
