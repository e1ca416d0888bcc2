"""What happens beside training: progress bar, log files, checkpoints, interruption."""

import contextlib
import csv
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.histogram.metadata import create_summary_metadata
from tqdm import tqdm

from pic_tf.checkpoint import Checkpoints, metric_variables
from pic_tf.data.broken import BrokenImages
from pic_tf.histogram import buckets
from pic_tf.progress import drawing_interval
from pic_tf.replaced_file import replaced
from pic_tf.replicas import assign_to, numbers_of_workers

COLUMNS = "epoch step loss accuracy live_rows row_norm floored left_out skipped learning_rate images_per_second".split()
COLUMNS += ["knn", "probe"]
_AGREE_EVERY = 16  # calls between two exchanges among workers about a signal, or broken images
_MOST_LINES = 20  # on the terminal about broken images


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
                mininterval=drawing_interval(),
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


class BrokenWatch(keras.callbacks.Callback):
    """Lists images that cannot be decoded, which the input pipeline finds; ends the run where there are too many.

    Looks every 16 steps (or executions of several), at the end of an epoch, and before the first.

    Args:
      broken: where the pipeline takes note of them.
      most: share of the images that may be broken.
      alone: whether this is the only worker.
    """

    _supports_tf_logs = True  # it reads none, so none is fetched from the device

    def __init__(self, broken: BrokenImages, most: float, alone: bool = True):
        super().__init__()
        self._broken, self._most, self._alone, self._calls, self._told = broken, most, alone, 0, 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.look()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._calls += 1
        if self._calls % _AGREE_EVERY == 0:
            self.look()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.look()

    def look(self) -> None:
        """List what is new; every worker has to call it.

        Raises:
          ValueError: where more images are broken than may be.
        """
        with going_on_without(self._broken.path):
            for line in self._broken.new():
                self._told += 1
                if self._told <= _MOST_LINES:
                    more = "; further ones in the file only" if self._told == _MOST_LINES else ""
                    tqdm.write(f"broken image, left out: {line}{more}", file=sys.stderr)
        count = len(self._broken)
        if not self._alone:  # a worker finds those of its own replicas
            strategy = self.model.distribute_strategy
            here = len(strategy.extended.worker_devices)
            count = int(numbers_of_workers(count, strategy).sum()) // here
        self._broken.check(self._most, count)


class MetricsFile(keras.callbacks.Callback):
    """metrics.csv, one row an epoch, replaced as a whole so that it is never half-written.

    Args:
      path: the file; rows that are there already stay.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._path = path
        self._rows = read_metrics(path) if path.exists() else []

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        numbers = {"epoch": epoch + 1, "step": int(self.model.optimizer.iterations.numpy())}
        numbers |= {name: repr(float(logs[name])) for name in COLUMNS if name in logs}
        self._rows.append({name: numbers.get(name, "") for name in COLUMNS})
        with going_on_without(self._path), replaced(self._path, newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """Rows of metrics.csv as text, '' where an epoch has no such number."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def last_figures(path: pathlib.Path, names: Sequence[str]) -> dict[str, float]:
    """The newest number of each name in metrics.csv, without those that were never measured."""
    rows = read_metrics(path) if path.exists() else []
    return {name: float(row[name]) for row in rows for name in names if row[name]}


class RowHealth(keras.callbacks.Callback):
    """Adds `row_norms` and `row_gaps` to the logs: [m, 3] of (from, to, count), over the epoch and all replicas.

    With several workers each needs it, since all take part in the sum.
    """

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        for metric in (self.model.row_norms, self.model.row_gaps):
            logs[metric.name] = buckets(metric.edges, metric.result().numpy())


class EventFiles(keras.callbacks.Callback):
    """TensorBoard event files: every number of metrics.csv against the step, and histograms of `RowHealth`.

    Args:
      directory: folder to write to.
    """

    def __init__(self, directory: pathlib.Path):
        super().__init__()
        self._directory, self._writer = directory, tf.summary.create_file_writer(str(directory))

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        with (
            going_on_without(self._directory),
            self._writer.as_default(step=self.model.optimizer.iterations.numpy()),
        ):
            for name in COLUMNS:
                if name in logs:
                    tf.summary.scalar(name, float(logs[name]))
            for name, description in _HISTOGRAMS.items():
                tf.summary.write(name, logs[name], metadata=create_summary_metadata(name, description))
            self._writer.flush()


_HISTOGRAMS = {
    "row_norms": "norms of the rows that came back from the store in the epoch, before the floor",
    "row_gaps": "steps for which these rows were away",
}


@contextlib.contextmanager
def going_on_without(path: pathlib.Path) -> Iterator[None]:
    """A log that cannot be written, on a full disk, is no reason to end weeks of training."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        tqdm.write(f"{path} not written ({str(error).splitlines()[0]}); training goes on", file=sys.stderr)


class Interrupted(Exception):
    """A signal ended training; the state is saved."""


class KeepState(keras.callbacks.Callback):
    """Checkpoints every few epochs, and on SIGINT or SIGTERM after the step that is running.

    As a context manager it handles these signals; `fit` then ends with `Interrupted`. It has to be
    the last callback, so that the others have seen the epoch it saves. Several workers have to save
    together: they exchange every 16 steps whether one of them has got a signal. A second signal ends
    the process at once.

    Args:
      checkpoints: where to.
      every: epochs between two checkpoints.
      texts: what to keep beside a checkpoint, files by name.
      metrics: values of the running metrics [R, ...] to go on from where a run resumes within an epoch.
      look: called before a checkpoint; raises where the state should not be kept.
      alone: whether this is the only worker.
    """

    _supports_tf_logs = True  # it reads none, so none is fetched from the device

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        texts: Callable[[], dict[str, str]],
        metrics: list[np.ndarray],
        look: Callable[[], None],
        alone: bool = True,
    ):
        super().__init__()
        self._alone, self._texts, self._look = alone, texts, look
        self._checkpoints, self._every, self._metrics = checkpoints, every, metrics
        self._signalled, self._calls = False, 0

    def __enter__(self) -> "KeepState":
        self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
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
        self._calls += 1
        last_of_epoch = batch + 1 == self.params["steps"]  # then the epoch's own end comes first
        if not last_of_epoch and (self._alone or self._calls % _AGREE_EVERY == 0) and self._interrupted():
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._interrupted():
            self._stop()
        if (epoch + 1) % self._every == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        self._look()
        self._checkpoints.save(self._texts)

    def _interrupted(self) -> bool:
        """Whether this worker, or another one, has got a signal."""
        if self._alone:
            return self._signalled
        return bool(numbers_of_workers(self._signalled, self.model.distribute_strategy).any())

    def _stop(self) -> None:
        self.save()
        raise Interrupted

    def _on_signal(self, number: int, _) -> None:
        self._signalled = True
        for again in self._handlers:  # from now on the system itself ends the process, whatever it is doing
            signal.signal(again, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # nobody may be there to read it
            # A handler must not use streams.
            os.write(2, b"\nstopping after this step; once more to stop at once\n")
