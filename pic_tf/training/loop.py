"""Pretrain from a resolved configuration to the exported backbone."""

import contextlib
import dataclasses
import json
import pathlib

import tensorflow as tf

from pic_tf.callbacks.broken_images import BrokenWatch
from pic_tf.callbacks.metrics_files import EventFiles, MetricsFile, RowHealth
from pic_tf.callbacks.non_finite import NanGuard
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.callbacks.stop_and_save import Interrupted, KeepState
from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import find_unreadable, labelled_batches, pretraining_batches
from pic_tf.data.presets import augmentation_of
from pic_tf.data.sources.source import Source
from pic_tf.evals.monitor import copy_weights
from pic_tf.files.lock import exclusive
from pic_tf.replicas.collectives import distribute, values_of
from pic_tf.replicas.devices import is_chief, several_workers
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.open_data import identity
from pic_tf.runs.resume import _begin_files, _check_room, _state_to_go_on_with, texts_beside
from pic_tf.runs.run_folder import (
    CHECKPOINTS,
    EXPORT,
    LOCK_FILE,
    METRICS_FILE,
    NAN_REPORTS,
    PICTURE,
    _broken_file,
    make_output_folder,
)
from pic_tf.runs.variables import metric_variables
from pic_tf.serving.of_run import export_trained
from pic_tf.settings import quantities
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone
from pic_tf.training.build import _knn_monitor, _pager, build_model
from pic_tf.training.plots import plot_training

_READ_AHEAD = 64  # more batches than the input pipeline prepares in advance
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


def run(
    config: Config,
    train: Source,
    monitored: tuple[Source, Source | None],
    strategy: tf.distribute.Strategy,
    allow_changed_flags: bool = False,
) -> Result:
    """Train, or go on with what is in the output folder, and export the backbone.

    Args:
      config: resolved configuration.
      train: training images.
      monitored: images whose labels the monitors use, and held-out ones or None.
      strategy: from `set_up_tensorflow`. With several workers each calls this; the first one writes.
      allow_changed_flags: go on with a run that began with other flags, where its state fits.

    Returns:
      What the run ended with.

    Raises:
      ValueError: for an output folder of another run, or an image that cannot be read.
      FloatingPointError: where a loss or gradient is not finite, see --on_nan.
      ConnectionError: where another worker is gone.
      OSError: where the last checkpoint or the export could not be written.
    """
    output = make_output_folder(config)
    try:
        with exclusive(output / LOCK_FILE) if is_chief(strategy) else contextlib.nullcontext():
            found = _state_to_go_on_with(config, train, strategy, allow_changed_flags)
            return _train(config, train, monitored, strategy, found)
    except _LOST as error:
        if not several_workers(strategy):
            raise
        raise ConnectionError(
            "expected all workers to train together, lost one: start all again with the same command, and training "
            "goes on from the newest checkpoint"
        ) from error


def _train(
    config: Config,
    train: Source,
    monitored: tuple[Source, Source | None],
    strategy: tf.distribute.Strategy,
    found: pathlib.Path | None,
) -> Result:
    """Train from the state found, or from the start."""
    output, chief, alone = pathlib.Path(config.output_dir), is_chief(strategy), not several_workers(strategy)
    labelled = monitored[0]
    if config.instance_store == "host" and not alone:
        raise ValueError("expected --instance_store=device or disk with several workers, got host: use disk")
    probe_classes = len(labelled.class_names) if config.probe_batch_size else 0
    model, plain = build_model(config, strategy, probe_classes), plain_backbone(config)
    pager = _pager(config, model, strategy)
    checkpoint_size = quantities.checkpoint_size(config, plain, model.projection, strategy.num_replicas_in_sync)
    _check_room(config, checkpoint_size if chief else 0, pager, strategy)
    broken = BrokenImages(train, output / _broken_file(strategy))
    knn = _knn_monitor(config, model, plain, chief, *monitored)
    total, per_epoch = quantities.total_steps(config), quantities.steps_per_epoch(config)
    kept_for_good = config.keep_checkpoint_every * per_epoch
    checkpoints = Checkpoints(output / CHECKPOINTS, model, config.keep_checkpoints, kept_for_good, pager)
    step = checkpoints.restore(found) if found else 0
    if pager and not found:
        pager.open(0)
        pager.forget()
    within_epoch = values_of(metric_variables(model), strategy) if step % per_epoch else []
    orders = config.sliding_windows(strategy.num_replicas_in_sync)
    if chief:
        _begin_files(config, output, found)

    on_host = augmentation_of(config.preset()).of_one if config.augment_on == "host" else None

    def batches(replica: int, start_step: int, stop_step: int) -> tf.data.Dataset:
        return pretraining_batches(
            train,
            orders[replica],
            crops=config.views(),
            seed=config.seed,
            start_step=start_step,
            stop_step=stop_step,
            broken=broken,
            augment=on_host,
        )

    def with_labelled(replica: int, start_step: int, stop_step: int) -> tf.data.Dataset:
        of_run = batches(replica, start_step, stop_step)
        if not model.probe:
            return of_run
        n, replicas = len(labelled), strategy.num_replicas_in_sync
        of_probe = labelled_batches(
            labelled,
            SlidingWindow(n, config.probe_batch_size, n, n, config.seed + 1, replica, replicas),
            crop=Crop(config.image_size, config.crop_scale),
            seed=config.seed + 1,  # other crops than those of training
            start_step=start_step,
            stop_step=stop_step,
            broken=BrokenImages(labelled),
        )
        return tf.data.Dataset.zip((of_run, of_probe)).map(lambda run, probe: (*run, probe))

    bar = ProgressBar(total, step, config.batch_size, chief)
    reports, most = output / NAN_REPORTS, config.max_skipped_steps
    guard = NanGuard(config.on_nan, most, reports, train, batches, quantities.learning_rates(config), chief)
    every = config.checkpoint_every
    images = json.dumps(identity(train))  # once: it looks at every name, or pixel
    state = KeepState(checkpoints, every, lambda: texts_beside(config, images), within_epoch, guard.look, alone)
    files = [MetricsFile(output / METRICS_FILE)] if chief else []
    if config.tensorboard:
        files += [RowHealth(), *([EventFiles(output / "tensorboard")] if chief else [])]
    # The rows of a window come before anything that keeps the state.
    callbacks = [
        bar,
        *([pager] if pager else []),
        BrokenWatch(broken, config.max_broken, alone),
        guard,
        *([knn] if knn else []),
        *files,
        state,
    ]

    def fit(step: int) -> None:
        """The rest of an epoch that was interrupted, or all that is left."""
        epoch, done = divmod(step, per_epoch)
        epochs = epoch + 1 if done else config.epochs
        model.fit(
            distribute(strategy, lambda replica, _: with_labelled(replica, step, epochs * per_epoch)),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=per_epoch - done,
            callbacks=callbacks,
            verbose=0,
        )

    with contextlib.ExitStack() as stack:
        for thing in (pager, checkpoints, bar):
            if thing:
                stack.callback(thing.close)
        stack.enter_context(state)
        try:
            while checkpoints.step < total:
                fit(checkpoints.step)
            if step < total:
                state.save()
        except Interrupted:
            checkpoints.wait()
            return Result(checkpoints.step, False, None)
        except tf.errors.ResourceExhaustedError:
            raise  # memory, not an image
        except tf.errors.OpError as error:
            if not alone and isinstance(error, _LOST):
                raise
            first = checkpoints.step  # the batches read ahead of this step hold the image
            steps = range(first, min(first + _READ_AHEAD, total))
            ids = (i for t in steps for order in orders for i in order.instance_ids(t).numpy())
            unreadable = find_unreadable(train, ids)
            if unreadable is None:
                raise
            # The step that failed has changed nothing; but with several replicas one may have begun it.
            if first and len(orders) == 1:
                state.save()
                checkpoints.wait()
            raise unreadable from error
        copy_weights(model.backbone, plain)
        checkpoints.wait()
    if not chief:
        return Result(total, True, None)
    references = {"raw pixels": knn.raw_pixels, "random init": knn.random_init} if knn else {}
    plot_training(output / METRICS_FILE, output / PICTURE, references)
    export_trained(config, plain, output / EXPORT, total, output / METRICS_FILE)
    return Result(total, True, output / EXPORT)
