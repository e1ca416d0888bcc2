"""After each epoch of a classifier: evaluate it, and keep its state."""

import json
import math
import pathlib
import sys
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.evals.classifier import Classifier
from pic_tf.files.replaced import replaced

_LOOK_EVERY = 64  # steps between two looks at the loss, which wait for the device


class EvaluateAndSave(keras.callbacks.Callback):
    """Accuracy on held-out images, and a file to go on from where training is interrupted.

    Args:
      views: data set of uint8 [b, H, W, 3], the held-out images in order.
      labels: int64 [n], theirs.
      broken: those that cannot be decoded; they are left out.
      max_broken: share of them that may be.
      every: epochs between two evaluations.
      epochs: of the whole training; the last is evaluated in any case.
      path: of the file.
      settings: what the file has to agree with; anything JSON can hold.

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
        """Bring the model to the state in the file, if it holds one of the same settings."""
        if not self._path.exists():
            return
        try:
            with np.load(self._path, allow_pickle=False) as file:
                if str(file["settings"]) != self._settings:
                    return
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"expected the state of an interrupted evaluation in {str(self._path)!r}, got a "
                f"file that cannot be read ({type(error).__name__}): remove it to begin anew"
            ) from error
        for i, variable in enumerate(_variables(model)):
            variable.assign(arrays[f"array{i}"])
        self.done = int(arrays["done"])
        self.accuracies = dict(zip(arrays["evaluated"].tolist(), arrays["accuracies"].tolist()))
        tqdm.write(f"going on after epoch {self.done} ({self._path})", file=sys.stderr)

    def whole(self) -> np.ndarray:
        """bool [n], which held-out images could be decoded."""
        return self._broken.decodable(np.arange(len(self._labels)))

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        if batch % _LOOK_EVERY == 0:
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
        right = (self.predictions[:, 0] == self._labels)[self.whole()]
        self.accuracies[self.done] = float(right.mean())
        tqdm.write(
            f"epoch {self.done}: loss {float(logs['loss']):.3f}, accuracy "
            f"{float(logs['accuracy']):.4f}, held out {self.accuracies[self.done]:.4f}",
            file=sys.stderr,
        )

    def _save(self) -> None:
        arrays = {
            f"array{i}": variable.numpy() for i, variable in enumerate(_variables(self.model))
        }
        with replaced(self._path, "wb") as file:
            np.savez(
                file,
                settings=self._settings,
                done=self.done,
                evaluated=np.array(list(self.accuracies), np.int64),
                accuracies=np.array(list(self.accuracies.values()), np.float64),
                **arrays,
            )


def _variables(model: Classifier) -> list[tf.Variable]:
    return [*model.state, *model.optimizer.momentums, model.optimizer.iterations]
