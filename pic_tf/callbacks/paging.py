"""Tell the pager of each step of `fit`."""

import tf_keras as keras

from pic_tf.instances.paging.pager import Pager


class PagingCallback(keras.callbacks.Callback):
    """Has the pager bring the rows of the next step; comes before callbacks that save the state.

    Args:
      pager: opened at `step`.
      step: the next one to take.
    """

    _supports_tf_logs = True  # it reads none, so none is fetched from the device

    def __init__(self, pager: Pager, step: int):
        super().__init__()
        self._pager, self._step, self._in_epoch = pager, step, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step += batch + 1 - self._in_epoch  # several where steps_per_execution says so
        self._in_epoch = batch + 1
        self._pager.follow(self._step)
