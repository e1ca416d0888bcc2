"""Draw one progress bar over the whole run."""

import time

import tf_keras as keras
from tqdm.auto import tqdm

from pic_tf.files.progress import drawing_interval, in_notebook


class ProgressBar(keras.callbacks.Callback):
    """Draw loss, accuracy, images/s and time left; add `images_per_second` to the logs.

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
            bar = "{bar}" if in_notebook() else "{bar:20}"  # a notebook draws it itself
            self._bar = tqdm(
                total=self._total,
                initial=self._done,
                unit="step",
                disable=self._hidden,
                mininterval=drawing_interval(),
                bar_format=(
                    f"{{percentage:3.0f}}%|{bar}| step {{n}}/{{total}} [{{elapsed}}, {{remaining}} "
                    "left{postfix}]"
                ),
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
        figures = [f"{n} {float(logs[n]):.3f}" for n in ("loss", "accuracy") if n in logs]
        figures.append(f"{self._images_per_second():,.0f} images/s")
        self._bar.set_postfix_str(", ".join(figures), refresh=False)

    def _images_per_second(self) -> float:
        """Measure the speed within this epoch."""
        return self._epoch_steps * self._batch_size / (time.monotonic() - self._started)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
