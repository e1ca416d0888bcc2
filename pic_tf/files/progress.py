"""Choose the interval between drawings of a progress bar."""

import sys


def drawing_interval() -> float:
    """Seconds between two drawings: live on a terminal, a line every half minute in a log file."""
    return 0.5 if sys.stderr.isatty() else 30.0
