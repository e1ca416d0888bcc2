"""Flags of earlier releases, which the flag files of runs may still hold."""

_NO_RANDAUGMENT = "RandAugment was removed, name another --augmentation or use the release that had it"
# A flag with its value, or with any: None where it changed nothing, else what became of it.
_RETIRED = {
    "--rand_augment=0.0,0.0": None,
    "--rand_augment": _NO_RANDAUGMENT,
    "--augmentation=randaugment": _NO_RANDAUGMENT,
}


def is_retired(flag: str) -> bool:
    """Whether a flag is of an earlier release and changed nothing there.

    Args:
      flag: a line of a flag file, such as "--seed=0".

    Raises:
      ValueError: for a flag of an earlier release that did change something.
    """
    found = next((key for key in (flag, flag.partition("=")[0]) if key in _RETIRED), None)
    if found is not None and _RETIRED[found] is not None:
        raise ValueError(f"expected flags of this version, got {flag}: {_RETIRED[found]}")
    return found is not None
