"""How often a progress bar is drawn."""

import sys


def drawing_interval() -> float:
    """Seconds between two drawings: a terminal has a live bar, a log file gets a line every half
    minute.
    """
    return 0.5 if sys.stderr.isatty() else 30.0
