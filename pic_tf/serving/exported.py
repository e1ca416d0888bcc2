"""Open exported backbones, SavedModels with cards, for evaluations."""

import dataclasses
import json
import os
from typing import Any

from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.files import saved_models
from pic_tf.runs.initial_weights import GRAPH, fingerprint, place_of
from pic_tf.runs.run_folder import CHECKPOINTS
from pic_tf.serving.model_card import FORMAT_VERSION, JSON_FILE, title

# Entries of a card for evaluations.
_ENTRIES = ("channels", "feature_dim", "image_size", "eval_crop", "training")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A SavedModel that pic_tf exported.

    Attributes:
      path: folder of the SavedModel.
      card: model card in it.
      fingerprint: hash of the weights and the graph.
    """

    path: str
    card: dict[str, Any]
    fingerprint: str

    @property
    def pixels(self) -> PixelFormat:
        """Format of the images that it takes."""
        return pixels_of(self.card)

    @property
    def name(self) -> str:
        """The name of the backbone in tables."""
        return title(self.card)

    def network(self) -> Any:
        """Load the network.

        It is a callable float32 [b, H, W, n] in [0, 1], training: bool -> float32 [b, C], with its
        variables.

        In the scope of a `tf.distribute` strategy the variables are that strategy's.
        """
        return saved_models.load(self.path)


def pixels_of(card: dict[str, Any]) -> PixelFormat:
    """Format of the images of a backbone's card; of 8 bits where an older one does not tell."""
    return PixelFormat(card["channels"], card.get("bit_depth", 8))


def open_exported(path: str | os.PathLike) -> Exported:
    """Open an export, or the one in the folder of a finished run, without loading the network.

    Args:
      path: folder of a SavedModel, or of a run.

    Returns:
      The export.

    Raises:
      ValueError: where there is none, or one that this version cannot use.
    """
    folder = place_of(path)
    if not (folder / GRAPH).is_file() or not (folder / "variables").is_dir():
        missing = "variables" if (folder / GRAPH).is_file() else GRAPH
        advice = "name a SavedModel, or the folder of a run that has finished"
        if (folder / CHECKPOINTS).is_dir():
            advice = (
                f"the run is not finished; python -m pic_tf.export --run={path} --output=FOLDER "
                "exports it as it is"
            )
        raise ValueError(
            f"expected an exported backbone at {str(path)!r}, got no {missing} there: {advice}"
        )
    try:
        card = json.loads((folder / JSON_FILE).read_text())
        version = card["format_version"]
        classifier = card.get("kind") == "classifier"
        if version == FORMAT_VERSION and not classifier:
            _ = card["backbone"]["name"], *(card[name] for name in _ENTRIES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected {JSON_FILE} in the export {str(folder)!r}, got none that can be read "
            f"({type(error).__name__}): export it again with this version "
            "(python -m pic_tf.export), or convert it (tools/convert_weights.py)"
        ) from error
    if classifier:
        raise ValueError(
            f"expected an exported backbone at {str(path)!r}, got a classifier: name the backbone "
            "that it was made from, or classify images with pic_tf.predict"
        )
    if version != FORMAT_VERSION:
        raise ValueError(
            f"expected an export of format {FORMAT_VERSION} in {str(folder)!r}, "
            f"got format {version}, written by pic_tf {card.get('pic_tf_version')}: "
            "export it again with this version"
        )
    return Exported(str(folder), card, fingerprint(folder))
