"""The first command of a newcomer: it trains, learns and leaves what it promises."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.callbacks.metrics_files import read_metrics
from pic_tf.data.sources.array import digits
from pic_tf.evals.knn import knn_accuracy
from tests.processes import commands_that_fork

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=900, **kwargs
    )


# Half of its epochs learns enough for the same assertions; the whole of it is run with the slow
# tests.
@pytest.fixture(
    scope="module", params=[("--epochs=60",), pytest.param((), marks=pytest.mark.slow)], ids=str
)
def quickstart(request, tmp_path_factory):
    output = tmp_path_factory.mktemp("quickstart")
    flags = (f"--flagfile={CONFIGS / 'quickstart.flags'}", f"--output_dir={output}")
    return output, command("pic_tf.train", *flags, *request.param)


def test_it_learns(quickstart):
    output, ended = quickstart
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = read_metrics(output / "metrics.csv")
    assert float(rows[-1]["knn"]) >= 0.95
    assert float(rows[-1]["loss"]) < 0.6 * float(rows[0]["loss"])


def test_the_export_has_what_was_learned(quickstart):
    """kNN from nothing but the SavedModel is what the run reported."""
    output, _ = quickstart
    serve = tf.saved_model.load(str(output / "backbone")).signatures["serving_default"]
    bank, queries = digits("train"), digits("held_out")
    features = [
        serve(images=tf.constant(source.images / 255, tf.float32))["features"].numpy()
        for source in (bank, queries)
    ]
    accuracy = knn_accuracy(features[0], bank.labels, features[1], queries.labels)
    # Normalised in another order of float32 operations: a borderline neighbour may change.
    np.testing.assert_allclose(
        accuracy, float(read_metrics(output / "metrics.csv")[-1]["knn"]), atol=1 / 297
    )


def test_its_output_is_the_plan_the_bar_and_nothing_else(quickstart):
    _, ended = quickstart
    names = [line.split()[0] for line in ended.stdout.splitlines() if not line.startswith(" ")]
    plan = "images views length order negatives backbone head learning devices norm memory output"
    assert names == [*plan.split(), "features", "done:"]
    told = r" *\d+%\||random network: |epoch \d+: loss |writing the backbone to "
    lines = [line for line in re.split(r"[\r\n]+", ended.stderr) if line.strip()]
    assert [line for line in lines if not re.match(told, line.strip())] == []


def test_interrupted_by_the_keyboard_it_says_how_to_go_on(tmp_path):
    arguments = [
        *("tests.shallow_command", "pic_tf.train"),
        f"--flagfile={CONFIGS / 'quickstart.flags'}",
        f"--output_dir={tmp_path}",
        *("--epochs=4", "--knn_every=0", "--tensorboard=false"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.1)  # until the first epoch has ended
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, stderr
    assert re.search(r"stopped at step \d+; the same command goes on from there", stdout)
    ended = command(*arguments)
    assert ended.returncode == 0 and "resuming from step" in ended.stdout
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [
        "23",
        "46",
        "69",
        "92",
    ]


@pytest.fixture(scope="module")
def quick_command():
    with commands_that_fork() as run:
        yield lambda module, *arguments: run(module, list(arguments), dict(os.environ), 300)


def test_help_explains_every_flag(quick_command):
    ended = quick_command("pic_tf.train", "--help")
    for name in ("window_size", "num_negatives", "min_row_norm", "plan_only"):
        assert f"--{name}" in ended.stdout.replace("[no]", "")
    assert "python -m pic_tf.train --flagfile=configs/quickstart.flags" in ended.stdout


def test_export_command(quickstart, quick_command, tmp_path):
    output, _ = quickstart
    ended = quick_command("pic_tf.export", f"--run={output}", f"--output={tmp_path / 'backbone'}")
    assert ended.code == 0, ended.stderr
    assert re.fullmatch(r"backbone after [\d,]+ steps written to .*\n", ended.stdout)
    assert (tmp_path / "backbone" / "saved_model.pb").exists()
    ended = quick_command("pic_tf.export", f"--run={tmp_path}", f"--output={tmp_path / 'other'}")
    assert ended.code == 1 and re.match(
        "error: expected a checkpoint in '.*', got none: name the", ended.stderr
    )
