"""Save and restore all that decides the future of a run."""

import os

import tensorflow as tf

from pic_tf.pic import PIC


class Checkpoints:
    """Checkpoints of a compiled PIC model: network, rows, ring, momentum, history, step, running metrics.

    Args:
      directory: folder to keep them in.
      model: a compiled model.
      keep: how many of the newest to keep.
    """

    def __init__(self, directory: str | os.PathLike, model: PIC, keep: int):
        self._model = model
        model.optimizer.build(model.trainable_variables)  # its momentum must exist to be restored
        checkpoint = tf.train.Checkpoint(model=model)
        self._manager = tf.train.CheckpointManager(checkpoint, os.fspath(directory), max_to_keep=keep)

    @property
    def step(self) -> int:
        """Updates applied so far."""
        return int(self._model.optimizer.iterations.numpy())

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None where there is none."""
        return self._manager.latest_checkpoint

    def save(self) -> None:
        """Write the state as it is now, unless the newest checkpoint already holds it."""
        if self.latest is None or not self.latest.endswith(f"-{self.step}"):
            self._manager.save(checkpoint_number=self.step)

    def restore(self) -> int:
        """Bring the newest checkpoint back, if there is one.

        Returns:
          The number of updates applied by then, 0 for a fresh start.

        Raises:
          ValueError: if it is the checkpoint of another model.
        """
        if self.latest is None:
            return 0
        try:
            self._manager.checkpoint.restore(self.latest).assert_existing_objects_matched()
        except (ValueError, AssertionError, tf.errors.OpError) as error:
            raise ValueError(
                f"expected a checkpoint of this model in {self.latest!r}, got one that does not fit "
                f"({str(error).splitlines()[0]}): use another --output_dir"
            ) from error
        return self.step
