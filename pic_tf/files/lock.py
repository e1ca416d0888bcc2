"""Let one process at a time work in a folder."""

import contextlib
import fcntl
import os
import pathlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock file; the system releases it however the process ends.

    Args:
      path: the file; it stays when the lock is released.

    Raises:
      ValueError: where another process holds it, or it cannot be written.
    """
    try:
        file = open(path, "a+")  # noqa: SIM115
    except OSError as error:
        raise ValueError(
            f"expected a folder to write to at {str(path.parent)!r}, got {error.strerror}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"expected {str(path.parent)!r} for this run alone, got another run in it "
                f"({file.read().strip()}): wait for its end, or use another folder"
            ) from None
        except OSError as error:  # not every file system can lock
            print(
                f"no lock on {path} ({error.strerror}): a second run in this folder would not be "
                "noticed",
                file=sys.stderr,
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
