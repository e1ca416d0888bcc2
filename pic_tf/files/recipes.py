"""Read flag files, which may include others, and find the recipes that come with the package."""

import os
import pathlib

from pic_tf.files.retired_flags import flag_of_today

_PACKAGE = pathlib.Path(__file__).parents[1]
_COMMENTS = ("#", "//")


def folder() -> pathlib.Path:
    """Folder of the recipes: inside of an installed package, beside the package in a clone."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def expand(arguments: list[str]) -> list[str]:
    """Replace every --flagfile of a command line by the flags in that file.

    Args:
      arguments: the command line; --flagfile=FILE, or --flagfile FILE in two words.

    Returns:
      The command line without --flagfile. What follows a word "--" stays as it is.

    Raises:
      ValueError: for a file that cannot be found or read, or that includes itself.
    """
    expanded, rest = [], list(arguments)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        if word in ("--flagfile", "-flagfile"):
            if not rest:
                raise ValueError("expected --flagfile=FILE, got no file: name one")
            word += f"={rest.pop(0)}"
        expanded += _flags_of(word)
    return expanded + rest


def flags_in(path: pathlib.Path, including: tuple[pathlib.Path, ...] = ()) -> list[str]:
    """Read a flag file: a flag in each line, blank lines, comments after # or //, --flagfile=FILE.

    Args:
      path: the file.
      including: the files that include it, the outermost first.

    Returns:
      The flags, those of included files in their place: the last one of a name counts. Retired
      flags that changed nothing are left out.

    Raises:
      ValueError: for a file that cannot be found or read, that includes itself, or that holds a
        retired flag which did change something.
    """
    chain = (*including, path.resolve())
    if path.resolve() in including:
        raise ValueError(
            "expected flag files that do not include themselves, "
            f"got {' -> '.join(map(str, chain))}"
        )
    try:
        with open(path) as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected text in --flagfile, got {error}: check the path, {str(path)!r}"
        ) from error
    except OSError as error:
        names = ", ".join(f"configs/{recipe.name}" for recipe in sorted(folder().glob("*.flags")))
        raise ValueError(
            f"expected a flag file at {str(path)!r}, got {error.strerror}: "
            f"name a file, or one of the recipes {names}"
        ) from error
    flags = []
    for line in lines:
        if line and not line.startswith(_COMMENTS) and (flag := flag_of_today(line)):
            flags += _flags_of(flag, chain)
    return flags


def _flags_of(word: str, including: tuple[pathlib.Path, ...] = ()) -> list[str]:
    """The word itself; or the flags of the file that it names as --flagfile=FILE."""
    flag, _, name = word.partition("=")
    if flag not in ("--flagfile", "-flagfile"):
        return [word]
    name = os.path.expanduser(name.strip())
    return flags_in(find(name, including), including) if name else []


def find(name: str, including: tuple[pathlib.Path, ...] = ()) -> pathlib.Path:
    """Find a file: beside the including one, else at this path, else the recipe of this name.

    Args:
      name: a path; "configs/NAME" finds what comes with the package.
      including: the files that include it, the outermost first.

    Returns:
      The file found first, or the path itself where there is none.
    """
    beside = [including[-1].parent / name] if including else []
    candidates = [*beside, pathlib.Path(name), folder() / name.removeprefix("configs/")]
    return next((path for path in candidates if os.path.exists(path)), pathlib.Path(name))
