"""Pretrain from a resolved configuration to the exported backbone. Read it from top to bottom."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
import tf_keras as keras

from pic_tf.callbacks.stop_and_save import CheckpointCallback, Interrupted
from pic_tf.data.pipeline import find_unreadable
from pic_tf.evals.monitor import copy_weights
from pic_tf.files.lock import exclusive
from pic_tf.replicas.collectives import distribute
from pic_tf.replicas.devices import is_chief, several_workers
from pic_tf.runs.open_data import Images, identity
from pic_tf.runs.resume import begin_files, find_checkpoint, go_on_from, restore_run, texts_beside
from pic_tf.runs.run_folder import (
    EXPORT,
    FLAGS_FILE,
    LOCK_FILE,
    broken_file,
    make_output_folder,
    rows_folder,
)
from pic_tf.settings import flag_files, quantities
from pic_tf.settings.config import Config
from pic_tf.training.build import Parts, build
from pic_tf.training.finish import finish
from pic_tf.training.wire import wire

_READ_AHEAD = 64  # more batches than the input pipeline prepares in advance
# What the others see of a worker that is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True)
class Result:
    """End of a run.

    Attributes:
      step: updates applied.
      finished: False where a signal, or a callback of the user, ended it early.
      export: folder of the SavedModel, None where it did not finish or another worker has it.
      lines: lines about what was learned.
    """

    step: int
    finished: bool
    export: pathlib.Path | None
    lines: tuple[str, ...] = ()


def run(
    config: Config,
    images: Images,
    strategy: tf.distribute.Strategy,
    allow_changed_flags: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Result:
    """Train, or go on with the run in the output folder, and export the backbone.

    Args:
      config: resolved configuration.
      images: the images of the run.
      strategy: devices. With several workers each calls this; the first one writes.
      allow_changed_flags: go on with a run that began with other flags, where its state fits.
      callbacks: the user's; they act before the state is saved.

    Returns:
      End of the run.

    Raises:
      ValueError: for an output folder of another run, or an image that cannot be read.
      FloatingPointError: for a loss or gradient that is not finite, see --on_nan.
      ConnectionError: where another worker is gone.
      OSError: where the last checkpoint or the export could not be written.
    """
    output = make_output_folder(config.output_dir, config.rows_elsewhere)
    rows = rows_folder(config.output_dir, config.rows_dir)
    chief, rate = is_chief(strategy), quantities.learning_rates(config)
    flags = flag_files.to_flagfile(config)
    alone = exclusive(output / LOCK_FILE) if chief else contextlib.nullcontext()
    with _lost_workers(strategy), alone:
        pictures = identity(images.train)  # once: it looks at every name, or pixel
        found = find_checkpoint(output, rows, pictures, strategy)
        if found:
            changed = flag_files.changed(flag_files.from_flagfile(str(found / FLAGS_FILE)), config)
            go_on_from(found, changed, allow_changed_flags, rate.total_steps, chief)
        else:  # images may have come and gone since a try that left no checkpoint
            (output / broken_file(strategy)).unlink(missing_ok=True)
        parts = build(config, rate, images, output, rows, strategy)
        if parts.monitor:
            parts.monitor.measure_references()
        start = restore_run(parts.checkpoints, parts.pager, found, report=chief)
        if chief:
            begin_files(output, flags, found)
        texts = functools.partial(texts_beside, output, flags, pictures)
        wired, state = wire(config, images.train, parts, start, texts, callbacks)
        with _closing(parts, wired), state:
            result = _fit(parts, wired, state, start)
        if result.finished and chief:
            lines = finish(config, parts, output)
            result = dataclasses.replace(result, export=output / EXPORT, lines=lines)
        return result


def _fit(
    parts: Parts, callbacks: list[keras.callbacks.Callback], state: CheckpointCallback, start: int
) -> Result:
    """Take all steps that are left, and save the last state."""
    total, per_epoch, checkpoints = parts.total_steps, parts.steps_per_epoch, parts.checkpoints
    strategy = parts.model.distribute_strategy
    try:
        while (step := checkpoints.step) < total:
            if parts.model.stop_training:  # a callback of the user asks for it
                state.save()
                raise Interrupted
            # The rest of an epoch that was interrupted, or all whole epochs up to a change.
            epoch, done = divmod(step, per_epoch)
            frozen = step < parts.frozen_steps
            parts.model.freeze_backbone(frozen)
            stop = parts.frozen_steps if frozen else total
            stop = (epoch + 1) * per_epoch if done else stop
            parts.model.fit(
                distribute(strategy, functools.partial(parts.inputs.of_replica, step, stop)),
                initial_epoch=epoch,
                epochs=stop // per_epoch,
                steps_per_epoch=per_epoch - done,
                callbacks=callbacks,
                verbose=0,
            )
        if start < total:
            state.save()
    except Interrupted:
        checkpoints.wait()
        return Result(checkpoints.step, False, None)
    except tf.errors.ResourceExhaustedError:
        raise  # memory, not an image
    except tf.errors.OpError as error:
        if several_workers(strategy) and isinstance(error, _LOST):
            raise
        _name_unreadable_image(parts, state, error)
        raise
    copy_weights(parts.model.backbone, parts.plain_backbone)
    checkpoints.wait()
    return Result(total, True, None)


def _name_unreadable_image(
    parts: Parts, state: CheckpointCallback, error: tf.errors.OpError
) -> None:
    """Look for the image behind an error of the input; save the state and name the image.

    Raises:
      ValueError: where there is such an image.
    """
    first, orders = parts.checkpoints.step, parts.inputs.orders
    # The batches that were read ahead.
    steps = range(first, min(first + _READ_AHEAD, parts.total_steps))
    ids = (i for t in steps for order in orders for i in order.instance_ids(t).numpy())
    unreadable = find_unreadable(parts.inputs.source, ids)
    if unreadable is None:
        return
    # The step that failed has changed nothing; but with several replicas one may have begun it.
    if first and len(orders) == 1:
        state.save()
        parts.checkpoints.wait()
    raise unreadable from error


@contextlib.contextmanager
def _lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Say in one sentence that another worker is gone."""
    try:
        yield
    except _LOST as error:
        if not several_workers(strategy):
            raise
        raise ConnectionError(
            "expected all workers to train together, lost one: start all again with the same "
            "command, and training goes on from the newest checkpoint"
        ) from error


def _closing(parts: Parts, callbacks: list[keras.callbacks.Callback]) -> contextlib.ExitStack:
    """Close the progress bar, the checkpoints and the pager at the end, however it comes."""
    stack = contextlib.ExitStack()
    for thing in (parts.pager, parts.checkpoints, callbacks[0]):
        if thing:
            stack.callback(thing.close)
    return stack
