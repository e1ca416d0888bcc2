"""Declare a setting: its default, its help text and its limits in one place."""

import dataclasses
import types
import typing
from typing import Any


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None, trajectory: bool = True) -> Any:
    """A field with its help text; `trajectory` says whether it changes what is learned."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "trajectory": trajectory})


def kind_of(field: dataclasses.Field) -> type:
    """The type of a field's value: int of `int | None`, tuple of `tuple[float, ...]`."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    return typing.get_origin(kind) or kind
