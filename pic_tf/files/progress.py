"""Choose the interval between drawings of a progress bar."""

import sys


def drawing_interval() -> float:
    """Seconds between two drawings: live on a terminal and in a notebook, else half a minute."""
    return 0.5 if sys.stderr.isatty() or in_notebook() else 30.0


def in_notebook() -> bool:
    """Tell whether a notebook shows the bars."""
    return "ipykernel" in sys.modules
