"""Report broken images, and end a run with too many of them."""

import sys

import tf_keras as keras
from tqdm import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.files.optional import going_on_without
from pic_tf.replicas.collectives import numbers_of_workers

_AGREE_EVERY = 16  # calls between two exchanges among workers about a signal, or broken images
_MOST_LINES = 20  # on the terminal about broken images


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
