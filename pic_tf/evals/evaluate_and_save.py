"""Evaluate a classifier after each epoch, and save its state."""

import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm.auto import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.evals.classifier import Classifier
from pic_tf.evals.training_state import restore_state, save_state

_CHECK_EVERY = 64  # steps between two checks of the loss, which wait for the device


class EvaluateAndSave(keras.callbacks.Callback):
    """Accuracy on held-out images, and a state file for an interrupted training to go on from.

    Args:
      views: data set of uint8 [b, H, W, 3], the held-out images in order.
      labels: int64 [n] of the held-out images.
      broken: list of held-out images that cannot be decoded; they are left out.
      max_broken: share of the held-out images that may be broken.
      every: epochs between two evaluations.
      epochs: epochs of the whole training; the last is evaluated in any case.
      path: the state file.
      settings: a file of other settings is passed over; anything JSON can hold.

    Attributes:
      done: epochs trained.
      accuracies: accuracy by epoch.
      predictions: int32 [n, 5] most likely classes after the last epoch evaluated, or None.
    """

    _supports_tf_logs = True  # the loss is fetched from the device only where it is looked at

    def __init__(
        self,
        views: tf.data.Dataset,
        labels: np.ndarray,
        broken: BrokenImages,
        max_broken: float,
        every: int,
        epochs: int,
        path: pathlib.Path,
        settings: dict[str, Any],
    ):
        super().__init__()
        self._views = views
        self._labels = labels
        self._broken = broken
        self._max_broken = max_broken
        self._every, self._epochs, self._path = every, epochs, path
        self._settings = json.dumps(settings, sort_keys=True)
        self.done, self.accuracies, self.predictions = 0, {}, None

    def restore(self, model: Classifier) -> None:
        """Restore the model from the file, if it holds a state of the same settings."""
        arrays = restore_state(self._path, self._settings, _variables(model))
        if arrays is None:
            return
        self.done = int(arrays["done"])
        self.accuracies = dict(zip(arrays["evaluated"].tolist(), arrays["accuracies"].tolist()))
        tqdm.write(f"going on after epoch {self.done} ({self._path})", file=sys.stderr)

    def decodable(self) -> np.ndarray:
        """bool [n], true for held-out images that could be decoded."""
        return self._broken.decodable(np.arange(len(self._labels)))

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if batch % _CHECK_EVERY == 0:
            self._check(logs)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        self._check(logs)
        self.done = epoch + 1
        if self.done % self._every == 0 or self.done == self._epochs:
            self._evaluate(logs)
        if self.done < self._epochs:
            self._save()

    def _check(self, logs: dict) -> None:
        if not math.isfinite(float(logs["loss"])):
            raise FloatingPointError(
                "expected a finite loss, got one that is not: lower --learning_rate"
            )

    def _evaluate(self, logs: dict) -> None:
        self.predictions = self.model.predict(self._views, verbose=0)
        self._broken.report(self._max_broken)
        right = (self.predictions[:, 0] == self._labels)[self.decodable()]
        held_out = self.accuracies[self.done] = float(right.mean())
        loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
        tqdm.write(
            f"epoch {self.done}: loss {loss:.3f}, accuracy {accuracy:.4f}, held out {held_out:.4f}",
            file=sys.stderr,
        )

    def _save(self) -> None:
        save_state(
            self._path,
            self._settings,
            _variables(self.model),
            done=self.done,
            evaluated=np.array(list(self.accuracies), np.int64),
            accuracies=np.array(list(self.accuracies.values()), np.float64),
        )


def _variables(model: Classifier) -> list[tf.Variable]:
    return [*model.state, *model.optimizer.momentums, model.optimizer.iterations]
