"""Run a command: its flags, its errors as sentences, its exit codes."""

import contextlib
import errno
import functools
import re
import sys
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import app, flags, logging

from pic_tf.files import recipes
from pic_tf.files.retired_flags import refuse_replaced
from pic_tf.files.streams import outlive_readers

START_AGAIN = 75  # exit code: the same command goes on (EX_TEMPFAIL of sysexits.h)
INTERRUPTED = 130  # exit code: stopped by Ctrl-C, as a shell shows it
_MORE_ROOM = "make room, or name another place to write to"
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ALLOW = "change the permissions of the folder, or name another one"
_MORE_MEMORY = "use smaller images, or a machine with more memory"


def run(
    main: Callable[[], int | None],
    help_text: Callable[[], str] | None = None,
    *,
    output: str = "output",
    no_room: str = _MORE_ROOM,
    no_memory: str = _MORE_MEMORY,
) -> None:
    """Parse the command line, run a command, and end the process with its exit code.

    Standard output and error may go away meanwhile: what is written is lost, and nothing else.

    Args:
      main: the command; it reads the parsed flags and returns an exit code, or None for 0.
      help_text: makes the text of --help; None for absl's list of flags.
      output: name of the flag that says where the command writes; named in errors of files.
      no_room: advice where files cannot be written.
      no_memory: advice where memory does not suffice.
    """

    def command(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
        with errors_as_sentences(output, no_room, no_memory):
            only_flags(arguments)
            return main()

    outlive_readers()
    app.run(command, flags_parser=functools.partial(parse, help_text=help_text))


@contextlib.contextmanager
def errors_as_sentences(
    output: str = "output", no_room: str = _MORE_ROOM, no_memory: str = _MORE_MEMORY
) -> Iterator[None]:
    """End the process with one line on standard error after wrong input or a lack of room.

    Args:
      output, no_room, no_memory: as of `run`.

    Raises:
      SystemExit: 1 for wrong input, numbers that are not finite, a full disk or memory that does
        not suffice; `START_AGAIN` where another worker is gone; `INTERRUPTED` for Ctrl-C.
    """
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        tensor = re.search(r"shape ?([\[(][\d, ]*[\])])", str(error))
        size = tensor[1] if tensor else "more"
        expected = "expected the command to fit into memory"
        sys.exit(f"error: {expected}, got no room for {size}: {no_memory}")
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(START_AGAIN)
    except OSError as error:
        folder = flags.FLAGS[output].value if output in flags.FLAGS else ""
        folder = repr(folder) if folder else f"--{output}"
        denied = error.errno in _DENIED or "permission denied" in str(error).lower()
        advice = _ALLOW if denied else no_room
        sys.exit(f"error: expected to write to {folder}, got {error}: {advice}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def parse(arguments: list[str], help_text: Callable[[], str] | None = None) -> list[str]:
    """Parse flags as absl does, but for --help, and for flag files, which `recipes` reads.

    Args:
      arguments: the command line, the program first.
      help_text: as of `run`.

    Returns:
      Words that are no flags, the program first.
    """
    if {"--help", "-help", "-h", "-?"} & set(arguments[1:]):
        if help_text is None:
            app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
        print(help_text(), end="")
        sys.exit(0)
    try:
        refuse_replaced(arguments)
        return flags.FLAGS(recipes.expand(arguments))
    except flags.Error as error:
        sys.exit(f"error: {_as_sentence(error)}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def _as_sentence(error: flags.Error) -> str:
    """Bring an error of absl's parser into the form of all others."""
    text = str(error).strip().rstrip(".")
    if missing := re.match(r"flag --(\w+)=None: Flag --\1 must have a value", text):
        return f"expected --{missing[1]}=..., got none: name it"
    return f"expected flags as --help explains them, got {text}"


def only_flags(arguments: list[str]) -> None:
    """Refuse words that are no flags.

    `--epochs 3 4` leaves 4 over, `--tensorboard false` leaves false.

    Args:
      arguments: words that absl leaves of the command line, the program first.

    Raises:
      ValueError: for a word.
    """
    if arguments[1:]:
        raise ValueError(f"expected flags only, got {arguments[1]!r}: write --flag=value")
