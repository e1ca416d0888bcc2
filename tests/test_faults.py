"""Faults that need a process of their own: signals, a disk that runs full."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pic_tf.files.command_line import START_AGAIN
from pic_tf.runs import checkpoint_files
from tests.processes import start_in_a_fork
from tests.test_kills import SHALLOW, SHORT, start
from tests.test_workers import wait_for

ROOT = pathlib.Path(__file__).parent.parent


def test_sigterm_saves(tmp_path):
    output = tmp_path / "run"
    flags = [f"--flagfile={flagfile()}", f"--output_dir={output}", *SHORT]
    module, *command = SHALLOW
    command += [*flags, "--epochs=400", "--knn_every=0"]
    process, stdout, stderr = start_in_a_fork(module, command, dict(os.environ), tmp_path)
    while process.is_alive() and not (output / "metrics.csv").exists():
        time.sleep(0.1)
    process.terminate()
    process.join(60)
    assert process.exitcode == START_AGAIN, stderr.read_text()[-2000:]
    said = stdout.read_text()
    stopped = int(
        re.search(r"stopped at step ([\d,]+); the same command goes on", said)[1].replace(",", "")
    )
    path, damaged = checkpoint_files.newest(output / "checkpoints")
    assert checkpoint_files.step_of(path) == stopped and not damaged


@pytest.mark.slow
def test_a_second_sigterm_ends_at_once(tmp_path):
    process = start(tmp_path, (*SHORT, "--epochs=400", "--knn_every=0"))
    wait_for(lambda: (tmp_path / "metrics.csv").exists(), process)
    time.sleep(1.0)  # it is written as training begins
    signalled = time.monotonic()
    while process.poll() is None and time.monotonic() - signalled < 30:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)  # faster than a step and the checkpoint
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and time.monotonic() - signalled < 30
    assert checkpoint_files.newest(tmp_path / "checkpoints")[0] is not None


@pytest.fixture
def may_mount(tmp_path):
    """Skips where a small disk cannot be had for a test."""
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path]
    if not shutil.which("unshare") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk (unshare -rm)")


# In a mount namespace of its own: a disk of 40 MB, which something else fills once there is a
# checkpoint.
_FULL_DISK = """
mkdir "$1/disk" && mount -t tmpfs -o size=40m tmpfs "$1/disk" && cd "$1/disk"
"${@:2}" > ../said 2>&1 & process=$!
until ls run/checkpoints/step-*/SHA256SUMS > /dev/null 2>&1; do
    kill -0 $process || { cat ../said; exit 99; }
    sleep 0.1
done
cat /dev/zero > filler 2> /dev/null
wait $process
echo "first $?"
cat ../said
rm filler
sync
"${@:2}" 2>&1
echo "second $?"
ls run/checkpoints run/backbone
"""


@pytest.mark.slow
def test_a_disk_that_runs_full_leaves_the_last_good_checkpoint(tmp_path, may_mount):
    command = [
        sys.executable,
        "-m",
        *SHALLOW,
        f"--flagfile={flagfile()}",
        "--output_dir=run",
        *SHORT,
    ]
    command += ["--epochs=10", "--knn_every=0", "--tensorboard=false"]
    ended = subprocess.run(
        ["unshare", "-rm", "bash", "-c", _FULL_DISK, "bash", tmp_path, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    first, second = ended.stdout.split("first ", 1)[1].split("resuming from step", 1)
    assert first.startswith("1\n"), ended.stdout[-3000:] + ended.stderr[-1000:]
    assert re.search(
        r"no checkpoint written \(.*No space left on device.*\); training goes on", first
    )
    assert re.search(
        r"error: expected to write to 'run', got .*No space left on device.*make room", first
    )
    assert "second 0" in second and "saved_model.pb" in second and "partial" not in second, second[
        -2000:
    ]


def flagfile():
    return ROOT / "configs" / "digits.flags"


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_refused_before_training(tmp_path, may_mount):
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && cd "$1" && "${@:2}"'
    command = [sys.executable, "-m", "pic_tf.train", f"--flagfile={flagfile()}", "--output_dir=run"]
    ended = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script, "bash", tmp_path, *command],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1
    assert re.search(
        r"error: expected [\d.]+ MB free in 'run' for 3 checkpoints, got 4.\d+ MB", ended.stderr
    )
