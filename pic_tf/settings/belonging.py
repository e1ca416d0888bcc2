"""Refuse flags that belong to another choice than the one made."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def check_belonging(
    settings: Any, flag: str, chosen: str, belongs: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse flags that would be ignored.

    Args:
      settings: dataclass of settings.
      flag: the flag that chooses, such as "method".
      chosen: what it chooses.
      belongs: name of a setting -> what it belongs to; of one that is missing, to everything.

    Raises:
      ValueError: for a setting of something else with another value than its default.
    """
    for field in dataclasses.fields(settings):
        owners = belongs.get(field.name, (chosen,))
        if chosen not in owners and getattr(settings, field.name) != field.default:
            raise ValueError(
                f"expected --{field.name} with --{flag}={' or '.join(owners)} only, got it with "
                f"{chosen}: leave it out"
            )
