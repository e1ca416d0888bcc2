"""Report detection or segmentation: JSON, and a row of a table."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.files.replaced import replaced
from pic_tf.serving.open_resnet import Resnet


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """Figures on test images.

    Attributes:
      task: name in the table.
      figures: names of the values that the table shows.
      values: facts and figures, as JSON can hold them.
    """

    task: str
    figures: tuple[str, ...]
    values: dict[str, Any]

    def table(self) -> str:
        """Format a table of one row."""
        v = self.values
        names = ("protocol", "backbone", "data set", "images", "test images", *self.figures)
        figures = " | ".join(f"{v[name]:.4f}" for name in self.figures)
        return (
            f"| {' | '.join(names)} |\n{'|---' * len(names)}|\n"
            f"| {self.task}, {v['steps']:,} steps | {v['backbone']} | {v['dataset']} | "
            f"{v['images']:,} | {v['test_images']:,} | {figures} |"
        )

    def write(self, path: pathlib.Path) -> None:
        """Write the values to a JSON file."""
        with replaced(path) as file:
            json.dump(self.values, file, indent=1)


def facts(settings: Any, backbone: str, train: PictureSet, test: PictureSet) -> dict[str, Any]:
    """Collect the values that a report begins with.

    Args:
      settings: resolved `EvaluationSettings`.
      backbone: its name.
      train, test: the images.
    """
    return {
        "protocol": settings.protocol,
        "backbone": backbone,
        "dataset": settings.dataset,
        "steps": settings.steps,
        "images": len(train.pictures),
        "test_images": len(test.pictures),
    }


def by_class(names: Sequence[str], figures: np.ndarray) -> dict[str, float | None]:
    """Name the figure of each class, float [C], with None for NaN, which JSON has not."""
    return {n: None if np.isnan(figure) else float(figure) for n, figure in zip(names, figures)}


def identity_of(
    settings: Any, names: tuple[str, ...], resnet: Resnet, train: str, test: str
) -> dict[str, Any]:
    """Collect the facts that a training depends on, and the test images.

    Args:
      settings: resolved `EvaluationSettings`.
      names: settings that change what is trained.
      resnet: the backbone.
      train, test: fingerprints of the images.
    """
    weights = hashlib.sha256(b"".join(w.tobytes() for w in resnet.model.get_weights()))
    prints = {"train": train, "test": test}
    return {
        "backbone": weights.hexdigest(),
        **prints,
        **{name: getattr(settings, name) for name in names},
    }


def name_of(protocol: str, identity: dict[str, Any]) -> str:
    """Name the files of an evaluation by what it depends on."""
    return f"{protocol}_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
