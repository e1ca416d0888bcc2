"""A pretraining run from its configuration to the exported backbone. Read it from top to bottom."""

import dataclasses
import os
import pathlib
import sys

import tensorflow as tf
import tf_keras as keras

from pic_tf import config as configuration
from pic_tf import plan
from pic_tf.callbacks import (
    EventFiles,
    Interrupted,
    KeepState,
    KnnMonitor,
    MetricsFile,
    ProgressBar,
    copy_weights,
)
from pic_tf.checkpoint import Checkpoints, metric_variables
from pic_tf.config import Config
from pic_tf.data.augment import Augmentation
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import find_undecodable, pretraining_batches
from pic_tf.data.sources import Source, open_dataset
from pic_tf.export import export_backbone
from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import resnet
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.plots import plot_training
from pic_tf.replicas import distribute, values_of
from pic_tf.strategy import describe as describe_devices
from pic_tf.strategy import is_chief, open_strategy, several_workers

_READ_AHEAD = 64  # more batches than the input pipeline prepares in advance
FLAGS_FILE, METRICS_FILE, PICTURE = "flags.txt", "metrics.csv", "training.png"
CHECKPOINTS, EXPORT = "checkpoints", "backbone"
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# What the others see of a worker that is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
      step: updates applied.
      finished: False where a signal ended it early.
      export: folder of the SavedModel, None where it did not finish or another worker has it.
    """

    step: int
    finished: bool
    export: pathlib.Path | None


def open_data(
    config: Config, num_replicas: int = 1, plan_only: bool = False
) -> tuple[Config, Source | None, Source | None]:
    """Open the data sets and fill in what depends on them.

    Args:
      config: the configuration.
      num_replicas: R.
      plan_only: take --num_instances where there is no data.

    Returns:
      (resolved configuration, training source, held-out source); no sources where `plan_only` went without.

    Raises:
      ValueError: for data or a setting that cannot be used.
    """
    if plan_only and config.num_instances and not (config.dataset == "digits" or os.path.isdir(config.dataset)):
        return configuration.resolve(config, config.num_instances, num_replicas), None, None
    train, held_out = open_dataset(config.dataset, config.eval_dataset)
    return configuration.resolve(config, len(train), num_replicas), train, held_out


def build_model(config: Config, strategy: tf.distribute.Strategy) -> PIC:
    """The compiled model that a resolved configuration describes; its initial weights follow from the seed."""
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(_POLICIES[config.precision])
    augmentation = Augmentation(
        config.flip_probability,
        config.jitter,
        config.jitter_probability,
        config.grayscale_probability,
        config.blur_probability,
        config.blur_sigma,
    )
    steps = plan.total_steps(config)
    warmup = min(round(config.warmup_epochs * plan.steps_per_epoch(config)), steps - 1)
    rate = WarmupCosine(plan.peak_learning_rate(config), steps, warmup, config.final_learning_rate)
    lars = config.lars_trust_coefficient if config.optimizer == "lars" else None
    with strategy.scope():
        model = PIC(
            resnet(config.depth, config.stem, config.width),
            config.num_instances,
            config.num_negatives,
            config.head,
            config.hidden_dim,
            config.embedding_dim,
            config.temperature,
            config.similarity,
            config.weight_correction,
            config.min_row_norm,
            augment=lambda views: augmentation(*views),
            seed=config.seed,
        )
        model.compile(
            LazySGD(rate, config.momentum, config.weight_decay, max_updates=steps, trust_coefficient=lars),
            lamb(WarmupCosine(config.lamb_learning_rate, steps, warmup), config)
            if config.optimizer == "lamb"
            else None,
            jit_compile=config.jit_compile,
            steps_per_execution=config.steps_per_execution,
        )
    keras.mixed_precision.set_global_policy("float32")
    return model


def lamb(rate: WarmupCosine, config: Config) -> keras.optimizers.Optimizer:
    """tensorflow-addons' LAMB (You et al. 2019, https://arxiv.org/abs/1904.00962)."""
    import tensorflow_addons as tfa

    plain = ["bias", "gamma", "beta"]
    return tfa.optimizers.LAMB(
        rate, weight_decay=config.weight_decay, exclude_from_weight_decay=plain, exclude_from_layer_adaptation=plain
    )


def plain_backbone(config: Config) -> keras.Model:
    """The backbone on one device and in float32, for weights that come from elsewhere."""
    return resnet(config.depth, config.stem, config.width)


def describe(config: Config, strategy: tf.distribute.Strategy) -> str:
    """The plan of a resolved configuration as text; builds its network, allocates no rows."""
    backbone = plain_backbone(config)
    head = projection_head(config.head, backbone.output_shape[-1], config.hidden_dim, config.embedding_dim)
    return plan.describe(config, backbone, head, describe_devices(strategy), strategy.num_replicas_in_sync)


def run(config: Config, train: Source, held_out: Source | None, strategy: tf.distribute.Strategy) -> Result:
    """Train, or go on with what is in the output folder, and export the backbone.

    Args:
      config: resolved configuration.
      train: training images.
      held_out: labelled images for the kNN monitor, or None.
      strategy: from `set_up_tensorflow`. With several workers each calls this; the first one writes.

    Returns:
      What the run ended with.

    Raises:
      ValueError: for an output folder of another run, or an image that cannot be read.
      ConnectionError: where another worker is gone.
    """
    output, chief, alone = pathlib.Path(config.output_dir), is_chief(strategy), not several_workers(strategy)
    _keep_flags(config, output, chief)
    model, plain = build_model(config, strategy), plain_backbone(config)
    knn = _knn_monitor(config, model, plain, chief, train, held_out)
    checkpoints = Checkpoints(output / CHECKPOINTS, model, config.keep_checkpoints)
    step, total, per_epoch = checkpoints.restore(), plan.total_steps(config), plan.steps_per_epoch(config)
    if step and chief:
        print(f"resuming from step {step:,} of {total:,} ({checkpoints.latest})")
    within_epoch = values_of(metric_variables(model), strategy) if step % per_epoch else []

    bar = ProgressBar(total, step, config.batch_size, chief)
    state = KeepState(checkpoints, config.checkpoint_every, within_epoch, alone)
    files = [MetricsFile(output / METRICS_FILE, step)] if chief else []
    if config.tensorboard and chief:
        files.append(EventFiles(output / "tensorboard"))
    callbacks = [bar, *([knn] if knn else []), *files, state]
    orders = [_order(config, replica, strategy) for replica in range(strategy.num_replicas_in_sync)]

    def batches(start_step: int, stop_step: int):
        def of_replica(replica: int, _) -> tf.data.Dataset:
            return pretraining_batches(
                train,
                orders[replica],
                image_size=config.image_size,
                crop_scale=config.crop_scale,
                seed=config.seed,
                start_step=start_step,
                stop_step=stop_step,
            )

        return distribute(strategy, of_replica)

    try:
        with state:
            while step < total:
                # The rest of an epoch that was interrupted, then all the others.
                epoch, done = divmod(step, per_epoch)
                epochs = epoch + 1 if done else config.epochs
                model.fit(
                    batches(step, epochs * per_epoch),
                    initial_epoch=epoch,
                    epochs=epochs,
                    steps_per_epoch=per_epoch - done,
                    callbacks=callbacks,
                    verbose=0,
                )
                step = checkpoints.step
    except Interrupted:
        return Result(checkpoints.step, False, None)
    except tf.errors.OpError as error:
        if not alone and isinstance(error, _LOST):
            raise ConnectionError(
                "expected all workers to train together, lost one: start all again with the same command, and training "
                f"goes on from {checkpoints.latest or 'the start'}"
            ) from error
        first = checkpoints.step  # the batches read ahead of this step hold the image
        steps = range(first, min(first + _READ_AHEAD, total))
        broken = find_undecodable(train, (i for t in steps for order in orders for i in order.instance_ids(t).numpy()))
        if broken is None:
            raise
        raise broken from error
    finally:
        bar.close()
    checkpoints.save()
    copy_weights(model.backbone, plain)
    if not chief:
        return Result(step, True, None)
    references = {"raw pixels": knn.raw_pixels, "random init": knn.random_init} if knn else {}
    plot_training(output / METRICS_FILE, output / PICTURE, references)
    export_backbone(plain, output / EXPORT)
    return Result(step, True, output / EXPORT)


def export_run(run_dir: str, path: str) -> int:
    """Export the backbone of a run's newest checkpoint.

    Args:
      run_dir: output folder of the run.
      path: folder to write the SavedModel to.

    Returns:
      The step of the checkpoint.

    Raises:
      ValueError: where there is no run or no checkpoint.
    """
    flagfile = pathlib.Path(run_dir) / FLAGS_FILE
    if not flagfile.exists():
        raise ValueError(f"expected the output folder of a training run, got {run_dir!r} without {FLAGS_FILE}")
    config = configuration.from_flagfile(str(flagfile))
    model, plain = build_model(config, tf.distribute.get_strategy()), plain_backbone(config)
    step = Checkpoints(pathlib.Path(run_dir) / CHECKPOINTS, model, config.keep_checkpoints).restore()
    if not step:
        raise ValueError(f"expected a checkpoint in {run_dir!r}, got none: let the run reach --checkpoint_every first")
    copy_weights(model.backbone, plain)
    export_backbone(plain, path)
    return step


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


def _order(config: Config, replica: int, strategy: tf.distribute.Strategy) -> SlidingWindow:
    return SlidingWindow(
        config.num_instances,
        config.batch_size,
        config.window_size,
        config.window_stride,
        config.seed,
        replica,
        strategy.num_replicas_in_sync,
    )


def _keep_flags(config: Config, output: pathlib.Path, chief: bool) -> None:
    """Check the resolved flags against those of the run that is there; the first worker writes them."""
    flagfile = output / FLAGS_FILE
    if flagfile.exists() and tf.train.latest_checkpoint(str(output / CHECKPOINTS)):
        changed = configuration.changed(configuration.from_flagfile(str(flagfile)), config)
        if changed:
            raise ValueError(
                f"expected the flags of the run in {str(output)!r}, got {', '.join(changed)}: use another --output_dir"
            )
    if not chief:
        return
    aside = flagfile.with_suffix(".partial")
    try:
        output.mkdir(parents=True, exist_ok=True)
        aside.write_text(configuration.to_flagfile(config))
        os.replace(aside, flagfile)
    except OSError as error:
        raise ValueError(f"expected a folder to write to at {str(output)!r}, got {error.strerror}") from error


def _knn_monitor(
    config: Config, model: PIC, plain: keras.Model, chief: bool, train: Source, held_out: Source | None
) -> KnnMonitor | None:
    if not config.knn_every:
        return None
    if train.labels is None or held_out is None or held_out.labels is None:
        if not chief:
            return None
        print(
            "kNN monitor: off, it needs training images in one folder a class and held-out ones likewise "
            "(--eval_dataset, or train and val inside --dataset)",
            file=sys.stderr,
        )
        return None
    return KnnMonitor(
        model.backbone,
        plain,
        chief,
        train,
        held_out,
        every=config.knn_every,
        epochs=config.epochs,
        image_size=config.image_size,
        eval_crop=config.eval_crop,
        images=config.knn_images,
        k=config.knn_k,
        temperature=config.knn_temperature,
        seed=config.seed,
    )
