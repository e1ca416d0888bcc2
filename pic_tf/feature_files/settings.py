"""Declare every setting of feature files: its flag, its default and its limits."""

import dataclasses
import pathlib

from pic_tf.evals.settings import CentralViews
from pic_tf.feature_files.views import VIEWS
from pic_tf.settings.check import check_ranges
from pic_tf.settings.setting import setting

LAYERS = ("features", "embedding")
ENDINGS = (".parquet", ".npy")


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """Backbone and images."""

    model: str = setting(
        "runs/pic",
        "Backbone: a SavedModel that pic_tf exported, the folder of a run, or 'pixels' for raw "
        "pixels.",
    )
    dataset: str = setting(
        "",
        "Images, in the forms of pic_tf.train; of a folder with train and val inside, all images "
        "of both. They need no labels. The default '' takes those of the run.",
    )
    eval_dataset: str = setting(
        "",
        "Held-out images, in the forms of --dataset. The default '' takes the held-out ones of it.",
    )
    layer: str = setting(
        "features",
        "Layer to write: the backbone's features, or the embedding, the projection head's output "
        "(of a run with checkpoints).",
        choices=LAYERS,
    )
    views: str = setting(
        "central",
        "Views of an image whose features are averaged: its centre (central), that and its mirror "
        "image (mirrored), the centre and the four corners (five_crop), or these and their mirror "
        "images (ten_crop).",
        choices=tuple(VIEWS),
    )
    batch_size: int = setting(256, "Images at once, >= 1.", limit="x >= 1")


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """Files to write."""

    output: str = setting(
        "features.parquet",
        "File to write, NAME.parquet, or NAME.npy with NAME.csv beside it. One that has the same "
        "features already stays.",
    )
    diverse: int = setting(
        0,
        "Training images to choose so that they cover all others (k-centre greedy), >= 0, written "
        "to NAME_diverse.csv. The default 0 chooses none.",
        limit="x >= 0",
    )
    duplicates: float = setting(
        0.0,
        "Least cosine of two images that count as duplicates, 0 to 1; pairs are written to "
        "NAME_duplicates.csv. The default 0 looks for none.",
        limit="0 <= x <= 1",
    )


@dataclasses.dataclass(frozen=True)
class EmbedSettings(CentralViews, _Outputs, _Inputs):
    """Settings of a feature file."""


def check_embed(settings: EmbedSettings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    output = pathlib.Path(settings.output)
    folder = output.absolute().parent
    if output.suffix not in ENDINGS or output.is_dir() or not folder.is_dir():
        raise ValueError(
            "expected a name that ends in .parquet or .npy in a folder that is there, "
            f"got --output={settings.output!r}: name another one"
        )
