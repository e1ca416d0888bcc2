"""Write the numbers of each epoch: metrics.csv and TensorBoard event files."""

import csv
import pathlib
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.histogram.metadata import create_summary_metadata

from pic_tf.files.optional import going_on_without
from pic_tf.files.replaced import replaced
from pic_tf.instances.health import buckets

COLUMNS = "epoch step loss accuracy live_rows row_norm floored left_out skipped".split()
COLUMNS += "learning_rate images_per_second knn probe".split()
COLUMNS += "rankme cosine_of_views cosine_of_images".split()  # since 0.1.0: older files lack them


class MetricsFile(keras.callbacks.Callback):
    """Write metrics.csv, one row an epoch.

    The file is replaced as a whole, so it is never half-written.

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
    """Read the rows of metrics.csv as text; '' stands for a number that an epoch has not."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def last_figures(path: pathlib.Path, names: Sequence[str]) -> dict[str, float]:
    """Give the newest number of each name in metrics.csv; a name without any number is left out."""
    rows = read_metrics(path) if path.exists() else []
    return {name: float(row[name]) for row in rows for name in names if row.get(name)}


class RowHealth(keras.callbacks.Callback):
    """Add histograms `row_norms` and `row_gaps` to the logs: [m, 3] of (from, to, count).

    They are those of the epoch and of all replicas.

    With several workers each needs it, since all take part in the sum.
    """

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        for metric in (self.model.row_norms, self.model.row_gaps):
            logs[metric.name] = buckets(metric.edges, metric.result().numpy())


class EventFiles(keras.callbacks.Callback):
    """Write TensorBoard event files: numbers of metrics.csv, histograms of `RowHealth`.

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
            for name in _HISTOGRAMS.keys() & logs.keys():
                metadata = create_summary_metadata(name, _HISTOGRAMS[name])
                tf.summary.write(name, logs[name], metadata=metadata)
            self._writer.flush()


_HISTOGRAMS = {
    "row_norms": "norms of the rows that came back from the store in the epoch, before the floor",
    "row_gaps": "steps for which these rows were away",
}
