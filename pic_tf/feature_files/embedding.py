"""Open the projection head of a run's checkpoint, with its backbone."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.models.projection import projection_head
from pic_tf.runs import checkpoint_files
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE
from pic_tf.runs.state import restore_backbone
from pic_tf.serving.saved_model import normalisation_layer
from pic_tf.settings import flag_files
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Backbone and head of a checkpoint; used as `Exported` is.

    Attributes:
      path: folder of the checkpoint.
      card: side of the views and of the central crop.
      config: configuration of the run.
      fingerprint: hash of the checkpoint.
    """

    path: str
    card: dict[str, Any]
    config: Config
    fingerprint: str

    @property
    def pixels(self) -> PixelFormat:
        """Format of the images that it takes."""
        return self.config.pixels

    @property
    def name(self) -> str:
        """The name in titles."""
        return f"embedding of {self.config.backbone}"

    def network(self) -> Callable[..., tf.Tensor]:
        """Build and restore float32 [b, H, W, n] in [0, 1], training: bool -> float32 [b, D]."""
        config = self.config
        backbone = plain_backbone(config)
        head = projection_head(
            config.head, backbone.output_shape[-1], config.hidden_dim, config.embedding_dim
        )
        restore_backbone(pathlib.Path(self.path), backbone, head)
        normalised = normalisation_layer(normalisation=config.normalisation)
        return lambda images, training: head(
            backbone(normalised(images), training=training), training=training
        )


def open_embedding(run_dir: str) -> Embedding:
    """Open the newest checkpoint of a run, without building its networks.

    Args:
      run_dir: output folder of the run.

    Returns:
      Backbone and head.

    Raises:
      ValueError: where there is no run or no checkpoint.
    """
    path, damaged = checkpoint_files.newest(pathlib.Path(run_dir) / CHECKPOINTS)
    if path is None:
        got = f"{len(damaged)} damaged ones" if damaged else "none"
        raise ValueError(
            f"expected a run with checkpoints at {run_dir!r}, got {got}: name the output folder of "
            "a run, or take --layer=features, which an export has"
        )
    config = flag_files.from_flagfile(str(path / FLAGS_FILE))
    size = max(view.size for view in config.views())
    card = {"image_size": size, "eval_crop": config.eval_crop}
    fingerprint = checkpoint_files.sha256_of(path / checkpoint_files.SUMS)
    return Embedding(str(path), card, config, fingerprint)
