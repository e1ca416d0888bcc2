"""Read settings from keywords of a Python call, and describe such a call by the settings."""

import dataclasses
import difflib
import inspect
import numbers
import os
from collections.abc import Callable
from typing import Any

from pic_tf.files import recipes
from pic_tf.settings import flag_files
from pic_tf.settings.setting import kind_of

_ACCEPTED = {int: numbers.Integral, float: numbers.Real, bool: bool, str: (str, os.PathLike)}
_ACCEPTED |= {tuple: (tuple, list)}


def from_keywords(settings: type, flagfile: str | os.PathLike, given: dict[str, Any]) -> Any:
    """Make settings from keywords, as a command does from its flags.

    Args:
      settings: dataclass of fields declared by `pic_tf.settings.setting.setting`.
      flagfile: flag file or recipe for what no keyword names; "" for the defaults.
      given: settings by name.

    Returns:
      An instance of `settings`.

    Raises:
      TypeError: for a keyword that is no setting, or a value of another type.
      ValueError: for a flag file that cannot be used.
    """
    found = settings()
    if flagfile:
        found = flag_files.from_flagfile(str(recipes.find(os.fspath(flagfile))), settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in given.keys() - fields.keys():
        close = difflib.get_close_matches(name, fields, 1)
        advice = f"did you mean {close[0]}?" if close else "help() of this function lists them"
        raise TypeError(f"expected the name of a setting, got {name!r}: {advice}")
    values = {name: _value(fields[name], value) for name, value in given.items()}
    return dataclasses.replace(found, **values)


def _value(field: dataclasses.Field, value: Any) -> Any:
    """Bring a value to the type of a setting: a path to text, a list to a tuple of numbers."""
    kind = kind_of(field)
    if value is None and field.default is None:
        return None
    fits = isinstance(value, _ACCEPTED[kind]) and (kind is bool or not isinstance(value, bool))
    if fits and kind is tuple:
        fits = all(isinstance(x, numbers.Real) for x in value)
    if not fits:
        expected = "numbers" if kind is tuple else kind.__name__
        raise TypeError(
            f"expected {field.name} of type {expected}, got {value!r} of type "
            f"{type(value).__name__}"
        )
    if kind is str:
        return os.fspath(value)
    return tuple(map(float, value)) if kind is tuple else kind(value)


def described_by(settings: type) -> Callable[[Callable], Callable]:
    """Give a function with **keywords the signature and the docstring that its settings make.

    Args:
      settings: dataclass of the settings that the keywords are.

    Returns:
      A decorator.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = dataclasses.fields(settings)
        keywords = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kind
            )
            for field in fields
            for kind in [field.type]
        ]
        function.__signature__ = signature.replace(parameters=[*own, *keywords])
        texts = (f"  {field.name}: {_text(field)}" for field in fields)
        function.__doc__ = inspect.cleandoc(function.__doc__) + "\n\nSettings:\n" + "\n".join(texts)
        return function

    return decorate


def _text(field: dataclasses.Field) -> str:
    choices = field.metadata["choices"]
    return field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
