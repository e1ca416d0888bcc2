"""Report an evaluation: JSON, a picture, and a line for a table."""

import dataclasses
import json
import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import confusion_matrix

from pic_tf.files.replaced import remove_partial, replaced

_MOST_CLASSES = 30  # in a confusion matrix that people can read
HEADER = (
    "| protocol | backbone | data set | labelled images | held out | top-1 | top-5 |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class Report:
    """Accuracy on held-out images.

    Attributes:
      protocol: name of the protocol in the table.
      backbone: name of the backbone in the table.
      dataset: name of the images in the table.
      images: labelled images used.
      top1: share of held-out images whose first class is right.
      top5: share of held-out images whose class is among the first five; None where five are all
        the classes.
      of_class: float64 [classes], top-1 within each class, NaN for classes without images.
      confusion: int64 [classes, classes], images of class i that were taken for class j.
      class_names: names of the classes.
      settings: facts of the evaluation; anything JSON can hold.
    """

    protocol: str
    backbone: str
    dataset: str
    images: int
    top1: float
    top5: float | None
    of_class: np.ndarray
    confusion: np.ndarray
    class_names: tuple[str, ...]
    settings: dict[str, Any]

    def line(self) -> str:
        """Format a row of the table with the head `HEADER`."""
        return row(self.values())

    def table(self) -> str:
        """Format a table of one row."""
        return f"{HEADER}\n{self.line()}"

    def figures(self) -> dict[str, Any]:
        """List protocol, images and accuracy."""
        return {
            "protocol": self.protocol,
            "backbone": self.backbone,
            "dataset": self.dataset,
            "labelled_images": self.images,
            "held_out_images": int(self.confusion.sum()),
            "top1": self.top1,
            "top5": self.top5,
        }

    def values(self) -> dict[str, Any]:
        """List everything but the confusion matrix, as JSON can hold it."""
        return {
            **self.figures(),
            "accuracy_of_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self.class_names, self.of_class)
            },
            **self.settings,
        }


def row(values: dict[str, Any]) -> str:
    """Format a row of the table with the head `HEADER` from the values of a report."""
    top5 = "" if values.get("top5") is None else f"{values['top5']:.4f}"
    dataset = values.get("dataset", "").replace("|", "\\|")
    return (
        f"| {values['protocol']} | {values['backbone']} | {dataset} | "
        f"{values['labelled_images']:,} | {values['held_out_images']:,} | "
        f"{values['top1']:.4f} | {top5} |"
    )


def report(
    protocol: str,
    backbone: str,
    dataset: str,
    images: int,
    predictions: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    settings: dict[str, Any],
) -> Report:
    """Count the right predictions.

    Args:
      protocol, backbone, dataset, images, class_names, settings: see `Report`.
      predictions: integer [n, m] most likely classes of the held-out images, the first first.
      labels: int64 [n] of the held-out images.

    Returns:
      The report.
    """
    classes = len(class_names)
    confusion = confusion_matrix(labels, predictions[:, 0], labels=np.arange(classes))
    count = confusion.sum(1)
    with np.errstate(invalid="ignore"):
        of_class = np.diag(confusion) / np.where(count, count, np.nan)
    top5 = float((predictions[:, :5] == labels[:, None]).any(1).mean()) if classes > 5 else None
    top1 = float((predictions[:, 0] == labels).mean())
    return Report(
        protocol, backbone, dataset, images, top1, top5, of_class, confusion, class_names, settings
    )


def write_report(found: Report, folder: pathlib.Path, name: str) -> None:
    """Write NAME.json and NAME.png: confusion matrix, or of many classes the accuracy of each.

    Args:
      found: the report.
      folder: folder to write to.
      name: name of the files, without ending.

    Raises:
      OSError: where they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    with replaced(folder / f"{name}.json") as file:
        json.dump(found.values(), file, indent=1)
    _draw(found, folder / f"{name}.png")


def _draw(found: Report, path: pathlib.Path) -> None:
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    few = len(found.class_names) <= _MOST_CLASSES
    size = 3 + 0.35 * len(found.class_names) if few else 8
    figure, axis = plt.subplots(figsize=(size, size if few else 4), layout="constrained")
    if few:
        _draw_confusion(axis, found)
    else:
        order = np.argsort(np.nan_to_num(found.of_class, nan=-1))
        order = order[~np.isnan(found.of_class[order])]
        axis.plot(found.of_class[order])
        worst = ", ".join(found.class_names[i] for i in order[:3])
        axis.set_xlabel(f"classes, the worst first ({worst}, ...)")
        axis.set_ylabel("accuracy")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
    axis.set_title(f"{found.protocol}: {found.backbone}, top-1 {found.top1:.4f}", fontsize=10)
    with replaced(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def _draw_confusion(axis: Axes, found: Report) -> None:
    count = found.confusion.sum(1, keepdims=True)
    share = found.confusion / np.maximum(count, 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(share):
        for j, value in enumerate(row):
            if value >= 0.005:
                style = {"ha": "center", "va": "center", "fontsize": 7}
                axis.text(j, i, f"{100 * value:.0f}", color="w" if value > 0.5 else "k", **style)
    axis.set_xticks(range(len(found.class_names)), found.class_names, rotation=90)
    axis.set_yticks(range(len(found.class_names)), found.class_names)
    axis.set_xlabel("taken for (% of the class)")
    axis.set_ylabel("class")
