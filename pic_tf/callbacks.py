"""What happens beside training: progress bar, kNN monitor, log files, checkpoints, interruption."""

import csv
import os
import pathlib
import signal
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.checkpoint import Checkpoints, metric_variables
from pic_tf.data.pipeline import evaluation_batches, find_undecodable
from pic_tf.data.sources import Source
from pic_tf.evals.features import inference, raw_pixels
from pic_tf.evals.knn import knn_accuracy
from pic_tf.replicas import assign_to

COLUMNS = "epoch step loss accuracy live_rows row_norm floored learning_rate images_per_second knn".split()


class ProgressBar(keras.callbacks.Callback):
    """One bar over the whole run: loss, accuracy, images/s, time left. Adds `images_per_second` to the logs.

    Args:
      total_steps: steps of the whole run.
      start_step: steps done before.
      batch_size: views a step, of all replicas.
      shown: whether to draw it, once for all workers.
    """

    _supports_tf_logs = True  # a number is fetched from the device only when it is shown

    def __init__(self, total_steps: int, start_step: int, batch_size: int, shown: bool = True):
        super().__init__()
        self._hidden = not shown
        self._total, self._done, self._batch_size = total_steps, start_step, batch_size
        self._shown = self._epoch_steps = 0
        self._bar = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                unit="step",
                disable=self._hidden,
                # A log file gets a line every half minute, a terminal a live bar.
                mininterval=0.5 if sys.stderr.isatty() else 30.0,
                bar_format="{percentage:3.0f}%|{bar:20}| step {n}/{total} [{elapsed}, {remaining} left{postfix}]",
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started, self._epoch_steps = time.monotonic(), 0

    def on_train_batch_end(self, batch: int, logs: dict) -> None:
        taken = batch + 1 - self._epoch_steps  # several where steps_per_execution says so
        self._epoch_steps += taken
        if not self._hidden and time.monotonic() - self._shown > self._bar.mininterval:
            self._show(logs)
        self._bar.update(taken)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if not self._hidden:
            self._show(logs)
        logs["images_per_second"] = self._images_per_second()

    def _show(self, logs: dict) -> None:
        self._shown = time.monotonic()
        self._bar.set_postfix_str(
            f"loss {float(logs['loss']):.3f}, accuracy {float(logs['accuracy']):.3f}, "
            f"{self._images_per_second():,.0f} images/s",
            refresh=False,
        )

    def _images_per_second(self) -> float:
        """Speed within this epoch."""
        return self._epoch_steps * self._batch_size / (time.monotonic() - self._started)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


class KnnMonitor(keras.callbacks.Callback):
    """Weighted kNN accuracy on held-out images. Adds `knn` to the logs of the epochs it runs in.

    Args:
      backbone: the network being trained.
      evaluated: a network alike on one device and in float32, which gets its weights to be evaluated.
      chief: whether this worker evaluates; the others only take part in reading the weights.
      train: labelled training images, the bank.
      held_out: labelled images to classify.
      every: epochs between two evaluations; the last epoch is always evaluated.
      epochs: epochs of the run.
      image_size: side of a view in pixels.
      eval_crop: side of the central crop, share of the short side.
      images: at most so many images of each, drawn by `seed`.
      k: neighbours that vote.
      temperature: of their votes.
      seed: of the draw.

    Attributes:
      raw_pixels: accuracy with normalised pixels as features.
      random_init: accuracy with the backbone as it is at construction, before it learns.

    Raises:
      ValueError: for an image that cannot be read.
    """

    def __init__(
        self,
        backbone: keras.Model,
        evaluated: keras.Model,
        chief: bool,
        train: Source,
        held_out: Source,
        *,
        every: int,
        epochs: int,
        image_size: int,
        eval_crop: float,
        images: int,
        k: int,
        temperature: float,
        seed: int,
    ):
        super().__init__()
        self._backbone, self._evaluated, self._chief = backbone, evaluated, chief
        self._features = inference(evaluated)
        self._every, self._epochs, self._k, self._temperature = every, epochs, k, temperature
        self._images, self._batches, self._labels = [], [], []
        for source in (train, held_out):
            ids = np.arange(len(source))
            if len(ids) > images:
                ids = np.sort(np.random.default_rng(seed).choice(ids, images, replace=False))
            self._images.append((source, ids))
            self._batches.append(evaluation_batches(source, ids, image_size=image_size, crop_fraction=eval_crop))
            self._labels.append(source.labels[ids])
        copy_weights(backbone, evaluated)
        self.raw_pixels = self._accuracy(raw_pixels) if chief else float("nan")
        self.random_init = self._accuracy(self._features) if chief else float("nan")

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if (epoch + 1) % self._every and epoch + 1 != self._epochs:
            return
        copy_weights(self._backbone, self._evaluated)
        if not self._chief:
            return
        logs["knn"] = self._accuracy(self._features)
        tqdm.write(
            f"epoch {epoch + 1}: loss {float(logs['loss']):.3f}, kNN {logs['knn']:.4f} "
            f"(random initialisation {self.random_init:.4f}, raw pixels {self.raw_pixels:.4f})",
            file=sys.stderr,
        )

    def _accuracy(self, features) -> float:
        try:
            bank, queries = (features(batches) for batches in self._batches)
        except tf.errors.OpError as error:
            broken = next(filter(None, (find_undecodable(*images) for images in self._images)), None)
            if broken is None:
                raise
            raise broken from error
        return knn_accuracy(bank, self._labels[0], queries, self._labels[1], self._k, self._temperature)


def copy_weights(trained: keras.Model, plain: keras.Model) -> None:
    """Bring the weights of a network that may be spread over replicas to one that is not; on every worker."""
    plain.set_weights([variable.numpy() for variable in trained.weights])  # statistics: the mean over replicas


class MetricsFile(keras.callbacks.Callback):
    """metrics.csv, one row an epoch, replaced as a whole so that it is never half-written.

    Args:
      path: the file.
      start_step: steps done before; later rows of an earlier run in the file are dropped.
    """

    def __init__(self, path: pathlib.Path, start_step: int):
        super().__init__()
        self._path = path
        self._rows = [row for row in read_metrics(path) if int(row["step"]) <= start_step] if path.exists() else []

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        numbers = {"epoch": epoch + 1, "step": int(self.model.optimizer.iterations.numpy())}
        numbers |= {name: repr(float(logs[name])) for name in COLUMNS if name in logs}
        self._rows.append({name: numbers.get(name, "") for name in COLUMNS})
        aside = self._path.with_suffix(".partial")
        with open(aside, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(aside, self._path)


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """Rows of metrics.csv as text, '' where an epoch has no such number."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class EventFiles(keras.callbacks.Callback):
    """TensorBoard event files: every number of metrics.csv against the step.

    Args:
      directory: folder to write to.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(directory))

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        with self._writer.as_default(step=self.model.optimizer.iterations.numpy()):
            for name in COLUMNS:
                if name in logs:
                    tf.summary.scalar(name, float(logs[name]))
        self._writer.flush()


class Interrupted(Exception):
    """A signal ended training; the state is saved."""


class KeepState(keras.callbacks.Callback):
    """Checkpoints every few epochs, and on SIGINT or SIGTERM after the step that is running.

    As a context manager it handles these signals; `fit` then ends with `Interrupted`. It has to be
    the last callback, so that the others have seen the epoch it saves. With several workers a signal
    ends this one at once, since all have to save together: the newest checkpoint is what remains.

    Args:
      checkpoints: where to.
      every: epochs between two checkpoints.
      metrics: values of the running metrics [R, ...] to go on from where a run resumes within an epoch.
      alone: whether this is the only worker.
    """

    _supports_tf_logs = True  # it reads none, so none is fetched from the device

    def __init__(self, checkpoints: Checkpoints, every: int, metrics: list[np.ndarray], alone: bool = True):
        super().__init__()
        self._alone = alone
        self._checkpoints, self._every, self._metrics = checkpoints, every, metrics
        self._interrupted = False

    def __enter__(self) -> "KeepState":
        signals = (signal.SIGINT, signal.SIGTERM) if self._alone else ()
        self._handlers = {s: signal.signal(s, self._on_signal) for s in signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Keras has just reset the metrics; an epoch that was cut in two goes on with its first part.
        if self._metrics:
            assign_to(metric_variables(self.model), self._metrics, self.model.distribute_strategy)
        self._metrics = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        last_of_epoch = batch + 1 == self.params["steps"]  # then the epoch's own end comes first
        if self._interrupted and not last_of_epoch:
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._interrupted:
            self._stop()
        if (epoch + 1) % self._every == 0:
            self._checkpoints.save()

    def _stop(self) -> None:
        self._checkpoints.save()
        raise Interrupted

    def _on_signal(self, number: int, _) -> None:
        if self._interrupted:  # a second signal: at once
            sys.exit(128 + number)
        self._interrupted = True
        os.write(2, b"\nstopping after this step; once more to stop at once\n")  # a handler must not use streams
