"""A training that is left behind in the middle, as one that was interrupted."""

import pathlib
import shutil

import pytest

from pic_tf.evals.transfer.training import SavedState


def leave_at(
    patch: pytest.MonkeyPatch, step: int, folder: pathlib.Path, copy: pathlib.Path
) -> list[int]:
    """Copy the folder of a training right after a step whose state is saved.

    Returns a list that gets every step taken.
    """
    save, taken = SavedState.on_train_batch_end, []

    def on_train_batch_end(self, batch, logs):
        save(self, batch, logs)
        taken.append(self.done)
        if self.done == step and not copy.exists():
            shutil.copytree(folder, copy)

    patch.setattr(SavedState, "on_train_batch_end", on_train_batch_end)
    return taken
