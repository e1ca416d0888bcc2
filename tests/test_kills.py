"""Processes killed at random moments, and what the same command makes of what they leave."""

import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.runs import checkpoint_files
from tests.short_runs import metrics_of, variables_of

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
SHORT = ("--epochs=8", "--width=4", "--hidden_dim=32", "--knn_every=4", "--checkpoint_every=1")
SHALLOW = ("tests.shallow_command", "pic_tf.train")


def start(output, flags, modules=SHALLOW):
    command = [sys.executable, "-m", *modules, f"--flagfile={CONFIGS / 'digits.flags'}"]
    return subprocess.Popen(
        [*command, f"--output_dir={output}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process):
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-2000:]
    return output


def exported(output):
    """The variables of a run's SavedModel."""
    reader = tf.train.load_checkpoint(str(output / "backbone" / "variables" / "variables"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.endswith("VALUE")
    }


def kill_and_resume(tmp_path, flags, kills, seed, longest, modules, least):
    """Kill a run with SIGKILL, half of the times while it writes a checkpoint, and let it end.

    At least so many arrays of checkpoint and export are compared. Returns how many kills left an unfinished checkpoint behind.
    """
    rng = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert "done: backbone" in end(start(whole, flags, modules))
    in_save = 0
    for kill in range(kills):
        process = start(killed, flags, modules)
        if kill % 2:
            time.sleep(rng.uniform(0, longest))
        else:
            while process.poll() is None and not list(killed.glob("checkpoints/step-*.partial")):
                time.sleep(1e-4)
            time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        in_save += bool(list(killed.glob("checkpoints/step-*.partial")))
    said = end(start(killed, flags, modules))
    if checkpoint_files.step_of(checkpoint_files.newest(whole / "checkpoints")[0]) and in_save:
        assert "damaged" not in said  # an unfinished one is not a damaged one
    for of in (variables_of, exported):
        expected, got = of(whole), of(killed)
        assert expected.keys() == got.keys() and len(expected) > least
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert metrics_of(killed) == metrics_of(whole)
    assert not list(killed.glob("checkpoints/*.partial"))
    return in_save


@pytest.mark.slow
def test_killed_twice(tmp_path):
    flags = (*SHORT, "--epochs=4", "--knn_every=2")
    assert kill_and_resume(tmp_path, flags, 2, seed=0, longest=10.0, modules=SHALLOW, least=20) >= 1


@pytest.mark.slow
def test_killed_three_times(tmp_path):
    modules = ("pic_tf.train",)
    assert kill_and_resume(tmp_path, SHORT, 3, seed=0, longest=15.0, modules=modules, least=90) >= 1


@pytest.mark.slow
def test_the_digits_killed_twenty_times(tmp_path):
    flags, modules = ("--checkpoint_every=4",), ("pic_tf.train",)
    in_save = kill_and_resume(tmp_path, flags, 20, 1, longest=45.0, modules=modules, least=90)
    print(f"{in_save} of 20 kills left an unfinished checkpoint")
    assert in_save >= 5
