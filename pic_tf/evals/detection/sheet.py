"""Draw images with the objects told in them."""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

from pic_tf.evals.detection.annotations import Annotated
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.files.replaced import replaced

_ACROSS = 4  # images side by side
_LEAST = 0.5  # score of an object that is drawn


def draw_detections(
    data: Annotated, found: Sequence[Detections], count: int, path: pathlib.Path
) -> None:
    """Draw some images, evenly chosen, with true boxes dashed and told ones in full.

    Args:
      data: the images.
      found: detections of each image.
      count: images to draw.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))
    rows = -(-len(chosen) // _ACROSS)
    figure, axes = plt.subplots(
        rows, _ACROSS, figsize=(3 * _ACROSS, 3 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, chosen):
        picture, told = data.pictures[i], found[i]
        with Image.open(picture.path) as image:
            axis.imshow(np.asarray(image.convert("RGB")))
        for x1, y1, x2, y2 in picture.objects.boxes - 0.5:  # the centre of a pixel is at 0
            style = {"fill": False, "edgecolor": "white", "linestyle": ":", "linewidth": 1}
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))
        for box, score, kind in zip(told.boxes - 0.5, told.scores, told.classes):
            if score >= _LEAST:
                colour = plt.get_cmap("tab20")(int(kind) % 20)
                size = (box[2] - box[0], box[3] - box[1])
                axis.add_patch(
                    Rectangle(box[:2], *size, fill=False, edgecolor=colour, linewidth=1.5)
                )
                behind = {"facecolor": colour, "linewidth": 0, "pad": 0.5, "alpha": 0.8}
                words = f"{data.class_names[kind]} {score:.2f}"
                axis.text(*box[:2], words, fontsize=7, parse_math=False, bbox=behind)
    with replaced(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
