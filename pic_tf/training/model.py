"""Build and compile the model of a configuration."""

import sys
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.baselines.instdisc import InstanceDiscrimination
from pic_tf.baselines.moco import MoCo
from pic_tf.baselines.simclr import SimCLR
from pic_tf.data.normalisation import IMAGENET
from pic_tf.data.presets import augmentation_of
from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.models.probe import LinearProbe
from pic_tf.optim.lars import LARS
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.serving.initial_weights import load_initial_weights
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_model(
    config: Config,
    rate: WarmupCosine,
    strategy: tf.distribute.Strategy,
    rows_on_device: int | None = None,
    probe_classes: int = 0,
) -> GuardedModel:
    """Build and compile the model; its initial weights follow from the seed.

    Args:
      config: resolved configuration.
      rate: learning rate of all that has no optimizer of its own.
      strategy: devices.
      rows_on_device: resting rows on the device of a replica; None for all of its own.
      probe_classes: classes of the linear probe; 0 for none.

    Returns:
      The model.
    """
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(_POLICIES[config.precision])
    with strategy.scope():
        backbone = plain_backbone(config)
        if config.initial_weights:
            _start(backbone, config)
        probe = None
        if probe_classes:
            features = backbone.output_shape[-1]
            probe = LinearProbe(
                features, probe_classes, config.probe_learning_rate, rate.total_steps
            )
        model = _of_method(config, backbone, probe, rows_on_device)
        model.compile(
            LazySGD(rate, config.momentum, config.weight_decay, max_updates=rate.total_steps),
            _backbone_optimizer(config, rate),
            jit_compile=config.jit_compile,
            steps_per_execution=config.steps_per_execution,
        )
    keras.mixed_precision.set_global_policy("float32")
    return model


def _start(backbone: keras.Model, config: Config) -> None:
    """Load --initial_weights, and name what is passed over."""
    over = load_initial_weights(
        backbone,
        config.initial_weights,
        config.backbone,
        config.normalisation != IMAGENET,
    )
    if over:
        more = f" and {len(over) - 3} more" * (len(over) > 3)
        text = f"{', '.join(over[:3])}{more} in {config.initial_weights}"
        print(f"initial weights: passed over {text}", file=sys.stderr)


def _of_method(
    config: Config,
    backbone: keras.Model,
    probe: LinearProbe | None,
    rows_on_device: int | None,
) -> GuardedModel:
    """Build the model that --method names."""
    of_all = {
        "head": config.head,
        "hidden_dim": config.hidden_dim,
        "embedding_dim": config.embedding_dim,
        "temperature": config.temperature,
        "augment": _of_groups(config) if config.augment_on == "device" else None,
        "probe": probe,
    }
    match config.method:
        case "simclr":
            return SimCLR(backbone, **of_all)
        case "mocov2":
            return MoCo(
                backbone,
                config.num_negatives,
                encoder_momentum=config.encoder_momentum,
                batch_groups=config.batch_groups,
                seed=config.seed,
                **of_all,
            )
        case "instdisc":
            return InstanceDiscrimination(
                backbone,
                config.num_instances,
                bank_momentum=config.bank_momentum,
                seed=config.seed,
                **of_all,
            )
        case _:  # diet is PIC with other settings
            return PIC(
                backbone,
                config.num_instances,
                config.num_negatives,
                similarity=config.similarity,
                weight_correction=config.weight_correction,
                min_row_norm=config.min_row_norm,
                forget_after=config.forget_after,
                label_smoothing=config.label_smoothing,
                mixup_probability=config.mixup_probability,
                small_crops_move_rows=config.small_crops_move_rows,
                seed=config.seed,
                rows_on_device=rows_on_device,
                **of_all,
            )


def _of_groups(config: Config) -> Callable[[tuple], tuple[tf.Tensor, ...]]:
    """Make the augmentation of groups of (views, random numbers)."""
    augmentation = augmentation_of(config.preset(), config.normalisation)
    return lambda groups: tuple(augmentation(*group) for group in groups)


def _backbone_optimizer(config: Config, rate: WarmupCosine) -> keras.optimizers.Optimizer | None:
    """Make an optimizer for the backbone alone; None where it moves as head and rows do."""
    if config.optimizer == "lars":
        return LARS(rate, config.momentum, config.weight_decay, config.lars_trust_coefficient)
    if config.optimizer == "lamb":
        rate = WarmupCosine(config.lamb_learning_rate, rate.total_steps, rate.warmup_steps)
        return lamb(rate, config.weight_decay)
    return None


def lamb(rate: WarmupCosine, weight_decay: float) -> keras.optimizers.Optimizer:
    """Make tensorflow-addons' LAMB (You et al. 2019, https://arxiv.org/abs/1904.00962)."""
    import tensorflow_addons as tfa

    plain = ["bias", "gamma", "beta"]
    return tfa.optimizers.LAMB(
        rate,
        weight_decay=weight_decay,
        exclude_from_weight_decay=plain,
        exclude_from_layer_adaptation=plain,
    )
