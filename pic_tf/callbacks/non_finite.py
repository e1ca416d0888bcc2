"""Report non-finite steps, and stop after too many."""

import json
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.callbacks import CHECK_EVERY
from pic_tf.data.sources.source import Source
from pic_tf.files.optional import going_on_without
from pic_tf.files.replaced import replaced
from pic_tf.instances.row_model import RowModel
from pic_tf.instances.rows import norms


class NonFiniteReport(keras.callbacks.Callback):
    """Report skipped steps, and stop after too many.

    Checks every 16 steps (or executions of several), at the end of an epoch and before a
    checkpoint, and reports the last of them. A late report does no harm: a skipped step leaves
    weights, rows and momentum as they were.

    Args:
      max_skipped: skipped steps to let pass; 0 stops at the first one.
      folder: folder for the reports, two files a step.
      source: the images.
      batches: from (replica, first step, one past the last) to the batches of a replica; they
        depend on nothing else.
      learning_rate: of a step.
      chief: whether this worker writes reports.
    """

    _supports_tf_logs = True  # no log is read here, so none is fetched from the device

    def __init__(
        self,
        max_skipped: int,
        folder: pathlib.Path,
        source: Source,
        batches: Callable[[int, int, int], tf.data.Dataset],
        learning_rate: keras.optimizers.schedules.LearningRateSchedule,
        chief: bool = True,
    ):
        super().__init__()
        self._max_skipped, self._folder, self._chief = max_skipped, folder, chief
        self._source, self._batches, self._learning_rate = source, batches, learning_rate
        self._seen = self._calls = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._seen = int(self.model.skipped.numpy())  # of a run that goes on

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._calls += 1
        if self._calls % CHECK_EVERY == 0:
            self.check()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.check()

    def check(self) -> None:
        """Report skipped steps; every worker has to call it.

        Raises:
          FloatingPointError: where there were more than may pass.
        """
        skipped = int(self.model.skipped.numpy())
        if skipped == self._seen:
            return
        self._seen = skipped
        step = int(self.model.last_skipped.numpy())
        report = self._report(step, skipped)
        if skipped > self._max_skipped:
            rate = float(self._learning_rate(step))
            raise FloatingPointError(
                f"expected a finite loss and gradient, got another at step {step:,}, learning rate "
                f"{rate:g} (skipped steps so far: {skipped}; they leave no trace in weights and "
                f"rows): see {report}; lower the rate with --allow_changed_flags, or let such "
                "steps pass with --on_nan=skip and --max_skipped_steps"
            )
        print(
            f"step {step:,} skipped, its loss or gradient is not finite ({skipped} so far): "
            f"{report}",
            file=sys.stderr,
        )

    def _report(self, step: int, skipped: int) -> pathlib.Path:
        """Write batch, images and row norms of a skipped step; every worker has to call it."""
        strategy = self.model.distribute_strategy
        count = strategy.num_replicas_in_sync
        parts = [next(iter(self._batches(replica, step, step + 1))) for replica in range(count)]
        ids = np.concatenate([ids for _, ids, _ in parts])
        # Of each kind of crop, views and the random numbers of their augmentation; or augmented
        # views.
        groups = [
            tf.nest.map_structure(lambda *x: np.concatenate(x), *group)
            for group in zip(*(x for x, *_ in parts))
        ]
        arrays = {
            f"{name}{number or ''}": value
            for number, group in enumerate(groups)
            for name, value in zip(
                ("views", "random"), group if isinstance(group, tuple) else (group,)
            )
        }
        row_norms = np.full(len(ids), np.nan)
        if isinstance(self.model, RowModel):
            row_norms = norms(ids, self.model.classifier, strategy)
        path = self._folder / f"step-{step:012d}.json"
        if not self._chief:
            return path
        instances = [
            {
                "id": int(i),
                "image": os.fsencode(self._source.path(i)).decode(errors="replace"),
                "row_norm": float(norm) if np.isfinite(norm) else None,  # JSON has no NaN
            }
            for i, norm in zip(ids, row_norms)
        ]
        rate = float(self._learning_rate(step))
        batch = path.with_suffix(".npz")
        report = {
            "step": step,
            "skipped": skipped,
            "learning_rate": rate,
            "batch": batch.name,
            "instances": instances,
        }
        with going_on_without(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with replaced(batch, "wb") as file:
                np.savez(file, instance_ids=ids, row_norms=row_norms, **arrays)
            with replaced(path) as file:
                json.dump(report, file, indent=1)
        return path
