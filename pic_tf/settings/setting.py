"""Declare a setting: its default, its help text and its limits in one place."""

import dataclasses
import operator
import types
import typing
from typing import Any

_RELATIONS = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    limit: str = "",
    trajectory: bool = True,
) -> Any:
    """Declare a field of a dataclass of settings.

    Args:
      default: value of the field; None stands for a value chosen later.
      help: text of the flag: full sentences with unit, range and the meaning of a default None.
      choices: the words to choose from, None for any value.
      limit: range of a number x, such as "0 <= x < 1" or "x >= 1"; "" for any.
      trajectory: whether the setting changes what is learned.

    Returns:
      The field.

    Raises:
      ValueError: for a limit of another form.
    """
    within(limit, 0.0)
    metadata = {"help": help, "choices": choices, "limit": limit, "trajectory": trajectory}
    return dataclasses.field(default=default, metadata=metadata)


def within(limit: str, value: float) -> bool:
    """Compare a number with a limit.

    Args:
      limit: a chain such as "0 <= x < 1" or "x >= 1"; "" for none.
      value: x.

    Returns:
      True where the limit holds; False for NaN.

    Raises:
      ValueError: for a limit of another form.
    """
    words = limit.split()
    terms = words[::2]
    relations = words[1::2]
    chain = len(terms) == len(relations) + 1 >= 2 and set(relations) <= set(_RELATIONS)
    if words and not (chain and terms.count("x") == 1):
        raise ValueError(f"expected a limit like '0 <= x < 1', got {limit!r}")
    numbers = [value if term == "x" else float(term) for term in terms]
    return all(_RELATIONS[r](a, b) for r, a, b in zip(relations, numbers, numbers[1:]))


def kind_of(field: dataclasses.Field) -> type:
    """Tell the type of a field's value: int of `int | None`, tuple of `tuple[float, ...]`."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    return typing.get_origin(kind) or kind
