"""Report broken images, and end a run with too many of them."""

import sys

import tf_keras as keras
from tqdm import tqdm

from pic_tf.callbacks import CHECK_EVERY
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.files.optional import going_on_without
from pic_tf.replicas.collectives import numbers_of_workers

_MAX_LINES = 20  # on the terminal


class BrokenImageReport(keras.callbacks.Callback):
    """List the broken images found by the input pipeline, and end a run with too many of them.

    Those listed by an earlier process count when this one finds them too. Checks every 16 steps (or
    executions of several) and at the end of an epoch.

    Args:
      broken: list that the pipeline fills.
      max_fraction: largest share of broken images, 0 to 1.
      single_worker: whether no other process takes part.
    """

    _supports_tf_logs = True  # no log is read here, so none is fetched from the device

    def __init__(self, broken: BrokenImages, max_fraction: float, single_worker: bool = True):
        super().__init__()
        self._broken, self._max_fraction, self._single_worker = broken, max_fraction, single_worker
        self._calls = self._reported = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._calls += 1
        if self._calls % CHECK_EVERY == 0:
            self.check()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.check()

    def check(self) -> None:
        """List the images found since the last call; every worker has to call it.

        Raises:
          ValueError: for too many broken images.
        """
        with going_on_without(self._broken.path):
            for line in self._broken.new():
                self._reported += 1
                if self._reported <= _MAX_LINES:
                    more = "; further ones in the file only" if self._reported == _MAX_LINES else ""
                    tqdm.write(f"broken image, left out: {line}{more}", file=sys.stderr)
        count = len(self._broken.found)
        if not self._single_worker:  # a worker finds those of its own replicas
            strategy = self.model.distribute_strategy
            here = len(strategy.extended.worker_devices)
            count = int(numbers_of_workers(count, strategy).sum()) // here
        self._broken.check(self._max_fraction, count)
