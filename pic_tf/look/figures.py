"""Write figures of matplotlib as PNG files."""

import pathlib
import warnings

import matplotlib
from matplotlib.figure import Figure

from pic_tf.files.replaced import replaced

DPI = 130  # pixels an inch

matplotlib.use("Agg")  # no screen needed


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Write a figure as a whole or not at all, and close it.

    Args:
      figure: the figure.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        # A name may be in letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        with replaced(path, "wb") as file:
            figure.savefig(file, format="png", dpi=DPI)
    plt.close(figure)


def shortened(text: str, length: int = 24) -> str:
    """Shorten a name to `length` characters, its end kept, with "?" for unprintable ones."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else f"{text[: length - 9]}...{text[-6:]}"
