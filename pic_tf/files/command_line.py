"""What every command asks of its command line."""


def only_flags(arguments: list[str]) -> None:
    """Refuse words that are no flags: `--epochs 3 4` leaves 4 over, `--tensorboard false` leaves false.

    Args:
      arguments: what absl leaves of the command line, the program first.

    Raises:
      ValueError: for a word.
    """
    if arguments[1:]:
        raise ValueError(f"expected flags only, got {arguments[1]!r}: write --flag=value")
