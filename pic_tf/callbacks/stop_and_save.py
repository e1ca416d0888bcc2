"""Save the state every few epochs, and at a signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import tf_keras as keras

from pic_tf.callbacks import CHECK_EVERY
from pic_tf.replicas.collectives import assign_to, numbers_of_workers
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.variables import metric_variables

_DEMANDS = (signal.SIGINT, signal.SIGTERM)
_WARNINGS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Exception):
    """End training at a signal; the state is saved."""


class CheckpointCallback(keras.callbacks.Callback):
    """Write a checkpoint every few epochs, and at a signal after the running step.

    As a context manager it handles SIGINT and SIGTERM, and SIGHUP, SIGUSR1 and SIGUSR2, by which
    batch systems warn of an end; `fit` then ends with `Interrupted`. In another thread than the
    main one it handles none. It has to be the last callback, so that the others have seen the epoch
    it saves. Several workers have to save together: they exchange every 16 steps whether one of
    them has got a signal. A second SIGINT or SIGTERM ends the process at once; warnings that come
    again change nothing.

    Args:
      checkpoints: where to.
      every: epochs between two checkpoints.
      texts: what to keep beside a checkpoint, files by name.
      metrics: values of the running metrics [R, ...] to go on from where a run resumes within an
        epoch.
      check: called before a checkpoint; raises where the state should not be kept.
      single_worker: whether no other process takes part.
    """

    _supports_tf_logs = True  # no log is read here, so none is fetched from the device

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        texts: Callable[[], dict[str, str]],
        metrics: list[np.ndarray],
        check: Callable[[], None],
        single_worker: bool = True,
    ):
        super().__init__()
        self._single_worker, self._texts, self._check = single_worker, texts, check
        self._checkpoints, self._every, self._metrics = checkpoints, every, metrics
        self._signalled, self._calls = False, 0

    def __enter__(self) -> "CheckpointCallback":
        before = {number: signal.getsignal(number) for number in (*_DEMANDS, *_WARNINGS)}
        # Who starts a run with nohup has SIGHUP ignored. Only the main thread may set a handler.
        main = threading.current_thread() is threading.main_thread()
        self._handlers = {
            number: handler
            for number, handler in before.items()
            if main and (number in _DEMANDS or handler != signal.SIG_IGN)
        }
        for number in self._handlers:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Keras has just reset the metrics; an epoch that was cut in two goes on with its first
        # part.
        if self._metrics:
            assign_to(metric_variables(self.model), self._metrics, self.model.distribute_strategy)
        self._metrics = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._calls += 1
        last_of_epoch = batch + 1 == self.params["steps"]  # then the epoch's own end comes first
        if (
            not last_of_epoch
            and (self._single_worker or self._calls % CHECK_EVERY == 0)
            and self._interrupted()
        ):
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._interrupted():
            self._stop()
        if (epoch + 1) % self._every == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        self._check()
        self._checkpoints.save(self._texts)

    def _interrupted(self) -> bool:
        """Tell whether this worker, or another one, has got a signal."""
        if self._single_worker:
            return self._signalled
        return bool(numbers_of_workers(self._signalled, self.model.distribute_strategy).any())

    def _stop(self) -> None:
        self.save()
        raise Interrupted

    def _on_signal(self, number: int, _) -> None:
        self._signalled = True
        # From now on the system itself ends the process at a demand, whatever it is doing.
        others, action = (
            (_DEMANDS, signal.SIG_DFL) if number in _DEMANDS else (_WARNINGS, signal.SIG_IGN)
        )
        for other in others:
            signal.signal(other, action)
        with contextlib.suppress(OSError):  # nobody may be there to read it
            # A handler must not use streams.
            os.write(2, b"\nstopping after this step; once more to stop at once\n")
