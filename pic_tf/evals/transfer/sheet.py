"""Draw images with what was told of them, side by side."""

import pathlib
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from pic_tf.files.replaced import replaced

_WIDTH = 12.0  # inches


def evenly(total: int, count: int) -> np.ndarray:
    """Choose `count` of `total` images, or all: int [n] in rising order."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def draw_sheet(
    images: Sequence[int],
    draw: Callable[[Axes, int], None],
    path: pathlib.Path,
    across: int = 4,
    height: float = 3.0,
) -> None:
    """Draw some images.

    Args:
      images: the images.
      draw: draws image i on axes.
      path: PNG file to write.
      across: images side by side.
      height: of an image in inches; all images of a row are 12 inches wide.

    Raises:
      OSError: where it cannot be written.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    rows = -(-len(images) // across)
    size = (_WIDTH, height * rows)
    figure, axes = plt.subplots(rows, across, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, images):
        draw(axis, int(i))
    with replaced(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
