"""Build the networks of a configuration."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from pic_tf.models.named import named_backbone
from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import resnet
from pic_tf.replicas.devices import describe as describe_devices
from pic_tf.settings import plan
from pic_tf.settings.config import Config


def plain_backbone(config: Config) -> keras.Model:
    """Build the backbone on one device and in float32, for weights that come from elsewhere."""
    if config.depth is None:
        return named_backbone(config.backbone, *config.normalisation, channels=config.channels)
    return resnet(config.depth, config.stem, config.width, channels=config.channels)


def describe(config: Config, strategy: tf.distribute.Strategy, images: Sequence[str] = ()) -> str:
    """Describe the plan of a resolved configuration; build its networks, but no rows.

    Args:
      config: resolved configuration.
      strategy: devices.
      images: lines about the images that were found.

    Returns:
      Lines to print.
    """
    backbone = plain_backbone(config)
    head = projection_head(
        config.head, backbone.output_shape[-1], config.hidden_dim, config.embedding_dim
    )
    devices, replicas = describe_devices(strategy), strategy.num_replicas_in_sync
    return plan.describe(config, backbone, head, devices, replicas, images)
