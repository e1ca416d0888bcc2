"""Train a detector, with a state file to go on from, and let it tell the objects of images."""

import contextlib
import json
import math
import pathlib
import sys
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.callbacks.progress import ProgressBar
from pic_tf.data.decode.pictures import decode_picture
from pic_tf.evals.detection.annotations import Annotated
from pic_tf.evals.detection.detector import Detector
from pic_tf.evals.detection.inputs import resized
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.evals.training_state import restore_state, save_state
from pic_tf.files.progress import drawing_interval

_CHECK_EVERY = 64  # steps between two checks of the loss, which wait for the device


class SavedState(keras.callbacks.Callback):
    """State of a detector's training, saved every so many steps and at the end.

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

    def restore(self, model: Detector) -> None:
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


def train_detector(
    model: Detector, batches: Any, state: SavedState, total: int, batch_size: int
) -> None:
    """Train up to step `total`.

    Args:
      model: compiled.
      batches: what `fit` takes, of the steps from `state.done` on.
      state: restored.
      total: steps of the whole training.
      batch_size: images a step, of all replicas.

    Raises:
      FloatingPointError: where the loss is not finite.
    """
    if state.done >= total:
        return
    bar = ProgressBar(total, state.done, batch_size)
    left = total - state.done
    with contextlib.closing(bar):
        model.fit(batches, epochs=1, steps_per_epoch=left, callbacks=[bar, state], verbose=0)


def detect(model: Detector, data: Annotated, side: int, long_side: int) -> list[Detections]:
    """Tell the objects of every image, one image at a time.

    Args:
      model: trained.
      data: the images.
      side, long_side: short side of an image in pixels, and the largest long side.

    Returns:
      Detections in the pixels of the files.
    """

    def of_file(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return resized(decode_picture(tf.io.read_file(path)), side, long_side)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([2])])
    def tell(image: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        boxes, scores, classes, count = model.detect(image[None], size[None])
        boxes = boxes[0] / tf.gather(scale, [1, 0, 1, 0])
        return boxes[: count[0]], scores[0, : count[0]], classes[0, : count[0]]

    paths = tf.data.Dataset.from_tensor_slices([str(picture.path) for picture in data.pictures])
    images = paths.map(of_file, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    bar = tqdm(
        images, data.name, len(data.pictures), unit=" images", mininterval=drawing_interval()
    )
    return [Detections(*(array.numpy() for array in tell(*entry))) for entry in bar]


def _check(logs: dict) -> None:
    if not math.isfinite(float(logs["loss"])):
        raise FloatingPointError(
            "expected a finite loss, got one that is not: lower --learning_rate"
        )


def _variables(model: Detector) -> list[tf.Variable]:
    of_metrics = {variable.ref() for metric in model.metrics for variable in metric.variables}
    own = [variable for variable in model.variables if variable.ref() not in of_metrics]
    return [*own, *model.optimizer.momentums, model.optimizer.iterations]
