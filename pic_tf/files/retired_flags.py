"""Translate or refuse flags of earlier releases, which flag files of runs may still hold."""

_NO_RANDAUGMENT = (
    "RandAugment was removed, name another --augmentation or use the release that had it"
)
# A flag with its value, or with any: None where it changed nothing, else what became of it.
_RETIRED = {
    "--rand_augment=0.0,0.0": None,
    "--rand_augment": _NO_RANDAUGMENT,
    "--augmentation=randaugment": _NO_RANDAUGMENT,
}
# A flag with its value, and the flag that stands in its place: the same run, bit for bit.
_REPLACED = {"--instance_store=host": "--instance_store=disk"}
_ADVICE = (
    "rows in memory are those on disk in a folder that lies there, use {} with a --rows_dir below "
    "/dev/shm"
)


def flag_of_today(flag: str) -> str | None:
    """Translate a flag of a flag file that may be of an earlier release.

    Args:
      flag: a line of the file, such as "--seed=0".

    Returns:
      The flag that means the same today; None for one that changed nothing.

    Raises:
      ValueError: for a flag of an earlier release that did change something and has gone.
    """
    if flag in _REPLACED:
        return _REPLACED[flag]
    found = next((key for key in (flag, flag.partition("=")[0]) if key in _RETIRED), None)
    if found is not None and _RETIRED[found] is not None:
        raise ValueError(f"expected flags of this version, got {flag}: {_RETIRED[found]}")
    return flag if found is None else None


def refuse_replaced(arguments: list[str]) -> None:
    """Refuse, on a command line, flags that are understood in files only.

    Args:
      arguments: the command line.

    Raises:
      ValueError: for such a flag; the text names its substitute.
    """
    for word in arguments:
        if word in _REPLACED:
            raise ValueError(
                f"expected flags of this version, got {word}: {_ADVICE.format(_REPLACED[word])}"
            )
