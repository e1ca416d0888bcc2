"""What a run goes on with: its checkpoints, damaged ones, changed flags, a folder that another
run is in.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest

from pic_tf.runs import checkpoint_files, open_data
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.settings import defaults, flag_files
from pic_tf.training import loop
from tests.short_runs import (
    ONE,
    assert_same_run,
    at_step,
    flip_a_bit,
    metrics_of,
    model_of,
    run,
    signals_after,
    variables_of,
)

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")


def test_checkpoint_of_another_model_is_refused(uninterrupted, tmp_path):
    settings = defaults.resolve(dataclasses.replace(uninterrupted, width=8), 1500)
    model = model_of(settings)
    with pytest.raises(ValueError, match="expected a checkpoint of this model"):
        directory = pathlib.Path(uninterrupted.output_dir) / "checkpoints"
        Checkpoints(directory, model).read(checkpoint_files.newest(directory)[0])


def test_changed_flags_are_named(uninterrupted):
    with pytest.raises(
        ValueError,
        match=r"got --temperature \(0.2 -> 0.1\): use another --output_dir, or --allow_ch",
    ):
        run(dataclasses.replace(uninterrupted, temperature=0.1))


def test_a_try_with_other_flags_that_was_cut_off_says_nothing(uninterrupted, tmp_path):
    """Flags left open are those of the checkpoint, whatever flags.txt was written for a try."""
    shutil.copytree(uninterrupted.output_dir, tmp_path, dirs_exist_ok=True)
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path))
    tried, _ = open_data.open_data(dataclasses.replace(settings, temperature=0.5))
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(tried))
    assert open_data.open_data(settings)[0].temperature == 0.2
    assert run(settings).finished
    # With a damaged newest checkpoint, those of the one before it.
    newest = checkpoint_files.newest(tmp_path / "checkpoints")[0]
    (newest / "flags.txt").write_text("--temper")
    assert open_data.open_data(settings)[0].temperature == 0.2


def test_output_folder_that_cannot_be(uninterrupted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ValueError, match=r"expected a folder to write to at '.*file', got File exists"
    ):
        run(dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "file")))


def test_allowed_changes_go_on_with_the_state(uninterrupted, tmp_path, capsys):
    """More epochs need room in the history, which the first ones must keep; two checkpoints are
    kept, and every third.
    """
    shutil.copytree(uninterrupted.output_dir, tmp_path, dirs_exist_ok=True)
    before = variables_of(tmp_path)
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path), knn_every=0)
    longer = dataclasses.replace(settings, epochs=6, temperature=0.25, checkpoint_every=1)
    longer = dataclasses.replace(longer, keep_checkpoints=2, keep_checkpoint_every=3)
    result = loop.run(*open_data.open_data(longer), ONE, allow_changed_flags=True)
    assert result.finished and result.step == 138
    out = capsys.readouterr().out
    assert "changed: --epochs (3 -> 6)" in out and "changed: --temperature (0.2 -> 0.25)" in out
    after = variables_of(tmp_path)
    np.testing.assert_array_equal(
        after["optimizer/history/products"][:69], before["optimizer/history/products"][:69]
    )
    losses = [float(row["loss"]) for row in metrics_of(tmp_path)]
    assert len(losses) == 6 and losses[-1] < losses[2]
    assert [step // 23 for step in checkpoint_files.states(tmp_path / "checkpoints")] == [3, 5, 6]


def test_what_is_left_open_stays_as_it_was(uninterrupted):
    """W, S and K of the run, although their defaults depend on the number of replicas."""
    left_open = dataclasses.replace(
        uninterrupted, window_size=None, window_stride=None, num_negatives=None
    )
    resumed, *_ = open_data.open_data(left_open, num_replicas=1)
    assert resumed == open_data.open_data(uninterrupted)[0]


def test_damaged_checkpoints_are_set_aside_and_the_one_before_them_used(
    uninterrupted, tmp_path, capsys
):
    """A file missing, an unfinished one, one cut, a bit flipped: one after another, the newest
    last.
    """
    settings = dataclasses.replace(
        uninterrupted, epochs=5, knn_every=0, checkpoint_every=1, keep_checkpoints=5
    )
    settings = dataclasses.replace(settings, output_dir=str(tmp_path / "whole"))
    assert run(settings).finished
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    good, missing, unfinished, cut, flipped = checkpoint_files.states(
        tmp_path / "run" / "checkpoints"
    ).values()
    (missing / "weights.npy").unlink()
    (unfinished / "SHA256SUMS").unlink()
    os.truncate(cut / "momentum.npy", 1000)
    flip_a_bit(flipped / "variables.npz")
    assert run(dataclasses.replace(settings, output_dir=str(tmp_path / "run"))).finished
    said = capsys.readouterr()
    assert (
        said.err.count("damaged checkpoint: ") == 4
        and f"resuming from step 23 of 115 ({good})" in said.out
    )
    assert all(
        path.with_suffix(".damaged").is_dir() for path in (missing, unfinished, cut, flipped)
    )
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_no_good_checkpoint_left(uninterrupted, tmp_path):
    """Nothing is touched: the disk may be what is wrong."""
    shutil.copytree(uninterrupted.output_dir, tmp_path / "run")
    for path in checkpoint_files.states(tmp_path / "run" / "checkpoints").values():
        flip_a_bit(path / "weights.npy")
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "run"))
    with pytest.raises(
        ValueError,
        match=r"expected a good checkpoint in .*, got 2 damaged ones .the newest: weights.npy",
    ):
        run(settings)
    assert len(checkpoint_files.states(tmp_path / "run" / "checkpoints")) == 2


def test_two_runs_in_one_folder(uninterrupted, tmp_path, monkeypatch):
    """Of another seed, which is another run; signal handlers are put back."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path), epochs=1, knn_every=0)
    settings = dataclasses.replace(settings, seed=1)

    def another():
        with pytest.raises(
            ValueError,
            match=rf"got another run in it \(process {os.getpid()} on .*\): wait for its end",
        ):
            run(settings)

    at_step(monkeypatch, 5, another)
    assert run(settings).finished  # undisturbed
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert metrics_of(tmp_path)[0]["loss"] != metrics_of(uninterrupted.output_dir)[0]["loss"]
    assert run(settings).finished  # and the lock is free again


@pytest.mark.slow
def test_the_clock_may_jump(uninterrupted, tmp_path, monkeypatch):
    """Neither the wall clock nor the times of files decide anything."""
    jumps = itertools.cycle([0.0, 3e8, -3e8])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path))
    signals_after(monkeypatch, 30)
    assert run(settings).step == 30
    for i, path in enumerate(checkpoint_files.states(tmp_path / "checkpoints").values()):
        for file in [path, *path.iterdir()]:
            os.utime(file, (1e9 - 1e6 * i, 1e9 - 1e6 * i))  # the newest looks oldest
    assert run(settings).finished
    assert metrics_of(tmp_path) == metrics_of(uninterrupted.output_dir)
