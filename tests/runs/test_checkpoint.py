"""Checkpoints of a run whose disk is full for a while."""

import numpy as np
import pytest

from pic_tf.runs import checkpoint_files
from pic_tf.runs.checkpoint import Checkpoints
from tests.instances.test_ring import make


def test_a_disk_that_is_full_for_a_while(tmp_path, monkeypatch, capsys):
    """Training goes on with the last good checkpoint; the last one of a run has to be written."""
    model, _ = make(24, 0.1)
    checkpoints = Checkpoints(tmp_path, model)

    def save(step):
        model.lazy_sgd.iterations.assign(step)
        checkpoints.save(dict)

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    save(1)
    checkpoints.wait()
    with monkeypatch.context() as full:
        full.setattr(np, "savez", no_room)
        save(2)
        save(3)
        with pytest.raises(OSError, match="No space left on device"):
            checkpoints.wait()
    said = capsys.readouterr().err
    assert "no checkpoint written ([Errno 28] No space left on device); training goes on" in said
    assert list(checkpoint_files.states(tmp_path)) == [1]
    save(3)
    checkpoints.wait()
    checkpoints.close()
    assert list(checkpoint_files.states(tmp_path)) == [1, 3]
