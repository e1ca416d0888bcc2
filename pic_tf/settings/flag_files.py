"""Read settings from absl flags and flag files, and write them."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from pic_tf.data.presets import Preset
from pic_tf.files import recipes
from pic_tf.settings.config import Config
from pic_tf.settings.methods import with_defaults
from pic_tf.settings.setting import kind_of

# They are those of the command that defines them, whose --helpshort shows them.
flags.disclaim_key_flags()


def define_flags(values: flags.FlagValues = flags.FLAGS, settings: type = Config) -> None:
    """Define one absl flag in `values` for every field of a dataclass of settings."""
    define = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(settings):
        help, choices, default = field.metadata["help"], field.metadata["choices"], field.default
        if choices:
            flags.DEFINE_enum(field.name, default, choices, help, flag_values=values)
        elif kind_of(field) is tuple:
            numbers = default and [f"{x:g}" for x in default]
            flags.DEFINE_list(field.name, numbers, help, flag_values=values)
        else:
            define[kind_of(field)](field.name, default, help, flag_values=values)


def from_flags(values: flags.FlagValues = flags.FLAGS, settings: type = Config) -> Any:
    """Read the configuration from parsed flags.

    Args:
      values: parsed absl flags.
      settings: `Config`, or the other dataclass that the flags were defined for.

    Returns:
      The configuration, with None where a value depends on the data set.

    Raises:
      ValueError: for a list with something else than numbers.
    """
    given = {}
    for field in dataclasses.fields(settings):
        value = values[field.name].value
        if isinstance(value, list):
            try:
                value = tuple(float(x) for x in value)
            except ValueError:
                raise ValueError(
                    f"expected numbers in --{field.name}, got {','.join(value)!r}"
                ) from None
        given[field.name] = value
    return settings(**given)


def to_flagfile(config: Config) -> str:
    """Write the configuration as a flag file."""
    lines = []
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(repr, value))
        if value is not None:
            lines.append(f"--{field.name}={value}\n")
    return "".join(lines)


def from_flagfile(path: str, settings: type = Config) -> Any:
    """Read the configuration from a flag file.

    Args:
      path: a flag file, e.g. as `to_flagfile` wrote it.
      settings: `Config`, or another dataclass of settings.

    Returns:
      The configuration.

    Raises:
      ValueError: if it cannot be read or parsed.
    """
    values = flags.FlagValues()
    define_flags(values, settings)
    try:
        _, *rest = values(["", *recipes.flags_in(pathlib.Path(path))])
    except flags.Error as error:
        raise ValueError(
            f"expected a flag file of this version at {path!r}, got {error}"
        ) from error
    if rest:
        raise ValueError(f"expected a flag file of this version at {path!r}, got {rest[0]!r} in it")
    return from_flags(values, settings)


def changed(old: Config, new: Config) -> list[str]:
    """List the changed flags that change the trajectory, as "--name (old -> new)".

    A run from before a flag of its method was there had what the method takes without it.
    """
    old, new = with_defaults(old), with_defaults(new)
    return [
        f"--{field.name} ({getattr(old, field.name)} -> {getattr(new, field.name)})"
        for field in dataclasses.fields(Config)
        if field.metadata["trajectory"] and getattr(old, field.name) != getattr(new, field.name)
    ]


def inherit(config: Config, old: Config) -> Config:
    """Take the settings left open from an old run; it may have had another number of replicas.

    The numbers behind --augmentation are left open: they follow from its name.
    """
    names = {
        field.name for field in dataclasses.fields(Config) if getattr(config, field.name) is None
    }
    names -= {field.name for field in dataclasses.fields(Preset)}
    return dataclasses.replace(config, **{name: getattr(old, name) for name in names})
