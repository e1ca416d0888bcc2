"""Declare every setting of the pictures: its flag, its default and its limits."""

import dataclasses
import pathlib

from pic_tf.data.sources.named import check_not_written
from pic_tf.evals.settings import CentralViews
from pic_tf.settings.check import check_ranges
from pic_tf.settings.setting import setting

METHODS = ("tsne", "pca")
MIN_POINTS = 4  # images in a feature map
MAX_IMAGES = 2000  # in a contact sheet


def _dataset_setting() -> str:
    return setting(
        "",
        "Training images, in the forms of pic_tf.train; a folder may hold train and val. The "
        "default '' takes those of the run, or of the file of features.",
    )


def _drawn_setting() -> str:
    return setting(
        "",
        "Images to draw, in the forms of --dataset. The default '' takes the held-out images of "
        "--dataset.",
    )


@dataclasses.dataclass(frozen=True)
class Features:
    """Backbone, images and features."""

    model: str = setting(
        "runs/pic",
        "Backbone to look at: a SavedModel that pic_tf exported, the folder of a finished run, "
        "'pixels' for raw pixels, or a file of features that pic_tf.embed wrote.",
    )
    dataset: str = _dataset_setting()
    cache_dir: str = setting(
        "",
        "Folder of cached features. The default '' takes the one of pic_tf.evaluate, beside the "
        "SavedModel.",
    )


@dataclasses.dataclass(frozen=True)
class RetrievalSettings(CentralViews, Features):
    """Search for the nearest images."""

    eval_dataset: str = setting(
        "",
        "Images to take queries from, in the forms of --dataset. The default '' takes the held-out "
        "ones of it.",
    )
    instances: bool = setting(
        False,
        "Search for duplicates and outliers among the instance weights of the run's newest "
        "checkpoint instead.",
    )
    queries: str = setting(
        "",
        "Images to search for: ids separated by commas, or a pattern of file names such as "
        "'cat/*', from whose images --count are drawn. The default '' draws --count of all images.",
    )
    count: int = setting(
        8, "Number of queries, or of pairs and of outliers with --instances; >= 1.", limit="x >= 1"
    )
    neighbours: int = setting(10, "Number of nearest images of each query, >= 1.", limit="x >= 1")
    output: str = setting("retrieval", "Beginning of the names of the files to write.")
    seed: int = setting(0, "Seed of the draw of queries, >= 0.", limit="x >= 0")


@dataclasses.dataclass(frozen=True)
class FeatureMapSettings(CentralViews, Features):
    """Draw features as points."""

    eval_dataset: str = _drawn_setting()
    method: str = setting(
        "tsne",
        "Way from features to points: t-SNE (tsne), or the two principal components (pca).",
        choices=METHODS,
    )
    images: int = setting(
        2000,
        "Largest number of images, 4 to 20000. More are thinned out by --seed.",
        limit="4 <= x <= 20000",
    )
    seed: int = setting(0, "Seed of the draw of images and of t-SNE, >= 0.", limit="x >= 0")
    output: str = setting(
        "map.png", "PNG file to write; the CSV file of the points beside it has the same name."
    )


@dataclasses.dataclass(frozen=True)
class SaliencySettings(CentralViews):
    """Draw saliency maps."""

    model: str = setting(
        "runs/pic",
        "ResNet to look at: a SavedModel that pic_tf exported, the folder of a finished run, a "
        "classifier that pic_tf.evaluate saved, or a file of weights (.pth, .safetensors).",
    )
    other: str = setting(
        "",
        "Another ResNet, in the forms of --model, to compare the maps of --model with. The default "
        "'' compares nothing.",
    )
    dataset: str = _dataset_setting()
    eval_dataset: str = _drawn_setting()
    predictions: str = setting(
        "",
        "CSV file of pic_tf.predict with the classes told for the same images, for the accuracy "
        "by similarity. The default '' leaves it out.",
    )
    images: int = setting(
        2000,
        "Largest number of images, >= 1. More are thinned out by --seed.",
        limit="x >= 1",
    )
    count: int = setting(
        16, "Number of images in a contact sheet, 1 to 600.", limit="1 <= x <= 600"
    )
    seed: int = setting(0, "Seed of the draw of images and of random maps, >= 0.", limit="x >= 0")
    output: str = setting("saliency", "Beginning of the names of the files to write.")


def check_retrieval(settings: RetrievalSettings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    images = settings.count * (settings.neighbours + 1)
    if images > MAX_IMAGES:
        raise ValueError(
            f"expected at most {MAX_IMAGES:,} images in a contact sheet, got {images:,}: "
            "lower --count or --neighbours"
        )
    check_beginning(settings.output)
    check_not_written(f"{settings.output}.csv", settings.dataset, settings.eval_dataset)


def check_saliency(settings: SaliencySettings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    check_beginning(settings.output)
    check_not_written(f"{settings.output}.csv", settings.dataset, settings.eval_dataset)
    if settings.predictions and not settings.other:
        raise ValueError(
            "expected --predictions with --other, since accuracy is drawn by the similarity of "
            "two networks, got it alone: name --other, or leave --predictions out"
        )


def check_beginning(output: str) -> None:
    """Raise ValueError unless `output` begins the names of files in a folder that is there."""
    folder = pathlib.Path(output).absolute().parent
    if not folder.is_dir() or output.endswith("/") or not output:
        raise ValueError(
            "expected the beginning of file names in a folder that is there, got "
            f"--output={output!r}: name another"
        )


def check_feature_map(settings: FeatureMapSettings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    path = pathlib.Path(settings.output)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise ValueError(
            "expected a PNG file in a folder that is there, "
            f"got {settings.output!r}: name another one"
        )
    check_not_written(path.with_suffix(".csv"), settings.dataset, settings.eval_dataset)
