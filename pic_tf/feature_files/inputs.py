"""Open the backbone and the images of a feature file."""

import dataclasses
import itertools
from typing import Any

import tensorflow as tf

from pic_tf import __version__
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.source import Source
from pic_tf.evals.features import state_of_files
from pic_tf.evals.run_behind import images_of
from pic_tf.evals.settings import PIXELS, EvaluationSettings, resolve
from pic_tf.feature_files.embedding import Embedding, open_embedding
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.feature_files.table import FORMAT_VERSION
from pic_tf.serving.exported import Exported, open_exported

PARTS = ("train", "held_out")


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Backbone and images.

    Attributes:
      settings: with the size of the views.
      network: the backbone; None for raw pixels.
      sources: images by part, "train" and, where some are held out, "held_out".
      card: facts about both; its entry "key" holds all that the features depend on.
    """

    settings: EmbedSettings
    network: Exported | Embedding | None
    sources: dict[str, Source]
    card: dict[str, Any]

    def __len__(self) -> int:
        return sum(map(len, self.sources.values()))


def open_inputs(settings: EmbedSettings) -> Inputs:
    """Open backbone and images; nothing is computed.

    Args:
      settings: as `check_embed` passes them.

    Returns:
      Both.

    Raises:
      ValueError: for a backbone or images that cannot be used.
    """
    network = _open_network(settings)
    own = {name: getattr(settings, name) for name in ("image_size", "eval_crop", "max_broken")}
    views = resolve(EvaluationSettings(model=settings.model, **own), network)
    settings = dataclasses.replace(settings, image_size=views.image_size, eval_crop=views.eval_crop)
    dataset, eval_dataset, split_folders = images_of(settings)
    pixels = network.pixels if network else None
    opened = open_dataset(dataset, eval_dataset, settings.max_broken, split_folders, pixels)
    sources = {name: source for name, source in zip(PARTS, opened) if source is not None}
    if settings.output.endswith(".parquet"):
        _check_names(sources)
    card = {
        "format_version": FORMAT_VERSION,
        "pic_tf_version": __version__,
        "backbone": network.name if network else "raw pixels",
        "dataset": dataset,
        "eval_dataset": eval_dataset,
        "split_folders": split_folders,
        "pixels": list(opened[0].pixels),
        "parts": [[name, len(source)] for name, source in sources.items()],
        "key": _key(settings, network, sources),
    }
    return Inputs(settings, network, sources, card)


def _open_network(settings: EmbedSettings) -> Exported | Embedding | None:
    if settings.model != PIXELS:
        return (open_exported if settings.layer == "features" else open_embedding)(settings.model)
    if settings.layer != "features":
        raise ValueError(
            f"expected --layer=features with --model={PIXELS}, got {settings.layer}: raw pixels "
            "have no head"
        )
    return None


def _key(
    settings: EmbedSettings, network: Exported | Embedding | None, sources: dict[str, Source]
) -> dict[str, Any]:
    of_settings = ("layer", "views", "image_size", "eval_crop", "batch_size")
    return {
        "network": network.fingerprint if network else "raw pixels",
        "images": {name: source.fingerprint() for name, source in sources.items()},
        "files": {name: state_of_files(source) for name, source in sources.items()},
        **{name: getattr(settings, name) for name in of_settings},  # sums depend on the batch
        "tensorflow": tf.__version__,
    }


def _check_names(sources: dict[str, Source]) -> None:
    """Raise ValueError for a name that is no UTF-8, as texts in a Parquet file are."""
    for source in sources.values():
        for name in itertools.chain(map(source.path, range(len(source))), source.class_names):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    "expected names of images and classes in UTF-8 for a Parquet file, got "
                    f"{name!r}: rename it, or write --output=NAME.npy"
                ) from None
