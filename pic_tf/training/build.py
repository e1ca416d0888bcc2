"""Build the compiled model, the pager and the monitors of a configuration."""

import sys

import tensorflow as tf
import tf_keras as keras

from pic_tf.data.presets import augmentation_of
from pic_tf.data.sources.source import Source
from pic_tf.evals.monitor import KnnMonitor
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import Pages
from pic_tf.instances.paging.segments import Lineage
from pic_tf.models.probe import LinearProbe
from pic_tf.optim.lars import LARS
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.replicas.collectives import local_indices
from pic_tf.replicas.devices import open_strategy
from pic_tf.runs.run_folder import rows_folder
from pic_tf.settings import quantities
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build_model(config: Config, strategy: tf.distribute.Strategy, probe_classes: int = 0) -> PIC:
    """The compiled model that a resolved configuration describes; its initial weights follow from the seed.

    With `probe_classes` it has a linear probe for so many classes.
    """
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(_POLICIES[config.precision])
    augmentation = augmentation_of(config.preset())
    on_device = config.augment_on == "device"
    rate = quantities.learning_rates(config)
    with strategy.scope():
        backbone = plain_backbone(config)
        probe = None
        if probe_classes:
            probe = LinearProbe(backbone.output_shape[-1], probe_classes, config.probe_learning_rate)
        model = PIC(
            backbone,
            config.num_instances,
            config.num_negatives,
            config.head,
            config.hidden_dim,
            config.embedding_dim,
            config.temperature,
            config.similarity,
            config.weight_correction,
            config.min_row_norm,
            augment=(lambda groups: tuple(augmentation(*group) for group in groups)) if on_device else None,
            small_crops_move_rows=config.small_crops_move_rows,
            seed=config.seed,
            rows_on_device=quantities.rows_on_device(config, strategy.num_replicas_in_sync),
            probe=probe,
        )
        model.compile(
            LazySGD(rate, config.momentum, config.weight_decay, quantities.total_steps(config)),
            backbone_optimizer(config),
            jit_compile=config.jit_compile,
            steps_per_execution=config.steps_per_execution,
        )
    keras.mixed_precision.set_global_policy("float32")
    return model


def backbone_optimizer(config: Config) -> keras.optimizers.Optimizer | None:
    """The backbone's own optimizer, None where it moves as head and rows do."""
    rate = quantities.learning_rates(config)
    if config.optimizer == "lars":
        return LARS(rate, config.momentum, config.weight_decay, config.lars_trust_coefficient)
    if config.optimizer == "lamb":
        rate = WarmupCosine(config.lamb_learning_rate, rate.total_steps, rate.warmup_steps)
        return lamb(rate, config.weight_decay)
    return None


def lamb(rate: WarmupCosine, weight_decay: float) -> keras.optimizers.Optimizer:
    """tensorflow-addons' LAMB (You et al. 2019, https://arxiv.org/abs/1904.00962)."""
    import tensorflow_addons as tfa

    plain = ["bias", "gamma", "beta"]
    return tfa.optimizers.LAMB(
        rate, weight_decay=weight_decay, exclude_from_weight_decay=plain, exclude_from_layer_adaptation=plain
    )


def set_up_tensorflow(config: Config) -> tf.distribute.Strategy:
    """Threads, determinism and devices for the whole process; to be called before TensorFlow's first operation.

    Args:
      config: the configuration.

    Returns:
      The strategy.

    Raises:
      ValueError: for devices that are not there.
    """
    if config.intra_op_threads:
        tf.config.threading.set_intra_op_parallelism_threads(config.intra_op_threads)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return open_strategy(config.strategy, config.replicas)


def _pager(config: Config, model: PIC, strategy: tf.distribute.Strategy) -> Pager | None:
    """What moves rows between the devices and where they rest."""
    if config.instance_store == "device":
        return None
    in_memory, orders = config.instance_store == "host", config.sliding_windows(strategy.num_replicas_in_sync)
    pages = [Pages(order, config.num_negatives) for order in orders]
    here = [orders[replica] for replica in local_indices(strategy)]
    blocks = [Lineage(order, None if in_memory else rows_folder(config)) for order in here]
    return Pager(model.classifier, pages, blocks, strategy, in_memory)


def _knn_monitor(
    config: Config, model: PIC, plain: keras.Model, chief: bool, labelled: Source, held_out: Source | None
) -> KnnMonitor | None:
    if not config.knn_every:
        return None
    if labelled.labels is None or held_out is None or held_out.labels is None:
        if not chief:
            return None
        print(
            "kNN monitor: off, it needs training images in one folder a class (or --labelled_dataset) and held-out "
            "ones likewise (--eval_dataset, or train and val inside --dataset)",
            file=sys.stderr,
        )
        return None
    return KnnMonitor(
        model.backbone,
        plain,
        chief,
        labelled,
        held_out,
        every=config.knn_every,
        epochs=config.epochs,
        image_size=config.image_size,
        eval_crop=config.eval_crop,
        images=config.knn_images,
        k=config.knn_k,
        temperature=config.knn_temperature,
        max_broken=config.max_broken,
        seed=config.seed,
        probe=model.probe,
    )
