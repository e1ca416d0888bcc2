"""Train a network by steps, with a state file to go on from."""

import contextlib
import json
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.callbacks.progress import ProgressBar
from pic_tf.data.order import SlidingWindow
from pic_tf.evals.training_state import restore_state, save_state
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupSteps
from pic_tf.replicas.collectives import distribute
from pic_tf.replicas.devices import set_up_tensorflow

_CHECK_EVERY = 64  # steps between two checks of the loss, which wait for the device


def open_devices(settings: Any, repeatable: bool = True) -> tf.distribute.Strategy:
    """Make the devices ready, before any operation.

    Args:
      settings: resolved `EvaluationSettings`.
      repeatable: allow only operations that give the same bits again.
    """
    strategy = set_up_tensorflow(
        settings.strategy, settings.replicas, settings.intra_op_threads, repeatable
    )
    keras.utils.set_random_seed(settings.seed)
    return strategy


class SavedState(keras.callbacks.Callback):
    """State of a training, saved every so many steps and at the end.

    Args:
      path: the file.
      every: steps between two.
      total: steps of the whole training.
      settings: a file of other settings is passed over; anything JSON can hold.

    Attributes:
      done: steps trained.
    """

    _supports_tf_logs = True  # the loss is fetched from the device only where it is looked at

    def __init__(self, path: pathlib.Path, every: int, total: int, settings: dict[str, Any]):
        super().__init__()
        self._path, self._every, self._total = path, every, total
        self._settings = json.dumps(settings, sort_keys=True)
        self.done = 0

    def restore(self, model: keras.Model) -> None:
        """Restore the model from the file, if it holds a state of the same settings.

        Raises:
          ValueError: for a file that cannot be read.
        """
        arrays = restore_state(self._path, self._settings, _variables(model))
        if arrays is None:
            return
        self.done = int(arrays["done"])
        tqdm.write(f"going on after step {self.done:,} ({self._path})", file=sys.stderr)

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        self.done += 1
        last = self.done == self._total
        if last or self.done % _CHECK_EVERY == 0:
            _check(logs)
        if last or self.done % self._every == 0:
            _check(logs)
            self._save()

    def _save(self) -> None:
        save_state(self._path, self._settings, _variables(self.model), done=self.done)


def train_by_steps(
    settings: Any,
    strategy: tf.distribute.Strategy,
    build: Callable[[], keras.Model],
    batches_of: Callable[[SlidingWindow, int], tf.data.Dataset],
    images: int,
    path: pathlib.Path,
    identity: dict[str, Any],
) -> keras.Model:
    """Train a network, or go on with an interrupted training of the same settings.

    Args:
      settings: resolved `EvaluationSettings`.
      strategy: devices.
      build: makes the network.
      batches_of: (order, first step) -> batches of the steps from there to the last.
      images: N, number of images.
      path: the state file.
      identity: what the training depends on.

    Returns:
      The trained network.

    Raises:
      ValueError: for a state file that cannot be read.
      FloatingPointError: where the loss is not finite.
    """
    total, batch = settings.steps, settings.batch_size
    with strategy.scope():
        model = build()
        at = tuple(int(s) for s in settings.decay_steps)
        rate = WarmupSteps(settings.learning_rate, at, settings.warmup_steps)
        model.compile(LazySGD(rate, settings.momentum, 0.0, total))
    state = SavedState(path, settings.save_every, total, identity)
    state.restore(model)
    if state.done >= total:
        return model

    def batches(replica: int, replicas: int) -> tf.data.Dataset:
        n = images
        return batches_of(
            SlidingWindow(n, batch, n, n, settings.seed, replica, replicas), state.done
        )

    bar = ProgressBar(total, state.done, batch)
    with contextlib.closing(bar):
        model.fit(
            distribute(strategy, batches),
            epochs=1,
            steps_per_epoch=total - state.done,
            callbacks=[bar, state],
            verbose=0,
        )
    return model


def _check(logs: dict) -> None:
    if not math.isfinite(float(logs["loss"])):
        raise FloatingPointError(
            "expected a finite loss, got one that is not: lower --learning_rate"
        )


def _variables(model: keras.Model) -> list[tf.Variable]:
    of_metrics = {variable.ref() for metric in model.metrics for variable in metric.variables}
    own = [variable for variable in model.variables if variable.ref() not in of_metrics]
    return [*own, *model.optimizer.momentums, model.optimizer.iterations]
