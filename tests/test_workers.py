"""Several processes on loopback train together."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import tf_keras as keras

from pic_tf.callbacks.metrics_files import read_metrics
from pic_tf.files.command_line import START_AGAIN
from pic_tf.instances.rows import snapshot
from pic_tf.replicas.devices import open_strategy
from pic_tf.runs import checkpoint_files
from tests.instances.test_replicas import ids_of_replicas
from tests.instances.test_ring import make, train_both
from tests.processes import forking, with_replicas
from tests.short_runs import variables_of
from tests.test_kills import SHALLOW

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
BATCH = 66  # a multiple of 2 and of 3


def arguments(output, *more):
    """Command of a run with networks of two blocks."""
    flags = [
        f"--flagfile={CONFIGS / 'digits.flags'}",
        f"--output_dir={output}",
        f"--batch_size={BATCH}",
    ]
    return [sys.executable, "-m", *SHALLOW, *flags, "--tensorboard=false", *more]


def clusters(count):
    """TF_CONFIG of each of so many workers, on free ports."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    workers = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [{"cluster": {"worker": workers}, "task": task} for task in tasks]


def start_workers(count, output, *more):
    """One process a worker; INDEX in a flag is the number of the worker."""
    started = []
    for index, cluster in enumerate(clusters(count)):
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        own = (flag.replace("INDEX", str(index)) for flag in more)
        started.append(subprocess.Popen(arguments(output, *own), env=environment, **pipes))
    return started


def rows_and_network(output):
    parts = ("weights", "momentum", "backbone", "projection")
    return {name: value for name, value in variables_of(output).items() if name.startswith(parts)}


def few_steps(strategy):
    """Rows and encoder after six steps of a linear encoder on two replicas."""
    ids = ids_of_replicas(2)[:6]
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model, dense = make(24, 0.1)
    train_both(model, dense, ids, [0.1] * len(ids), strategy=strategy)
    rows = snapshot(model.classifier, len(ids), strategy)
    return rows.weights, rows.momentum, *model.backbone.get_weights()


def of_worker(cluster):
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    return few_steps(open_strategy("auto"))


def test_two_workers_take_the_steps_of_two_replicas():
    with ProcessPoolExecutor(1, forking()) as first, ProcessPoolExecutor(1, forking()) as second:
        both = zip((first, second), clusters(2))
        found = [process.submit(of_worker, cluster) for process, cluster in both]
        expected = with_replicas(2, few_steps)
        for worker in found:
            for got, value in zip(worker.result(120), expected):
                np.testing.assert_array_equal(got, value)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_workers_equal_one_process_with_as_many_replicas(tmp_path, count):
    short = ("--epochs=1", "--knn_every=1", "--warmup_epochs=0", "--width=4", "--hidden_dim=32")
    workers = start_workers(count, tmp_path / "workers", *short)
    ended = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * count, ended[0][1][-2000:]
    assert "done: backbone" in ended[0][0] and not ended[1][0]  # the first one speaks
    alone = subprocess.run(
        arguments(tmp_path / "alone", *short, "--strategy=mirrored", f"--replicas={count}"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr[-2000:]
    metrics = [read_metrics(tmp_path / name / "metrics.csv") for name in ("workers", "alone")]
    of_workers, of_one = (rows_and_network(tmp_path / name) for name in ("workers", "alone"))
    assert of_workers.keys() == of_one.keys() and "weights" in of_one
    # Two numbers have one sum; three are added in another order: rounding at 6e-8 over 22 steps.
    tolerance = {"rtol": 0, "atol": 0} if count == 2 else {"rtol": 1e-4, "atol": 1e-5}
    for name in of_one:
        np.testing.assert_allclose(of_workers[name], of_one[name], **tolerance, err_msg=name)
    for one, other in zip(*metrics):
        np.testing.assert_allclose(float(one["loss"]), float(other["loss"]), rtol=1e-6)
    assert metrics[0][-1]["knn"] and (tmp_path / "workers" / "backbone" / "saved_model.pb").exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_a_signal_to_one_saves_the_state_of_all(tmp_path):
    command = (2, tmp_path, "--epochs=200", "--knn_every=0", "--checkpoint_every=1")
    first, second = start_workers(*command)
    wait_for(lambda: checkpoint_files.states(tmp_path / "checkpoints"), first)
    second.kill()
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == START_AGAIN, stderr[-2000:]
    sentence = (
        "error: expected all workers to train together, lost one: start all again with the same "
        "command"
    )
    assert stderr.splitlines()[-1].startswith(sentence)

    before = len(read_metrics(tmp_path / "metrics.csv"))
    workers = start_workers(*command)
    wait_for(lambda: len(read_metrics(tmp_path / "metrics.csv")) > before, workers[0])
    workers[1].send_signal(signal.SIGTERM)
    (stdout, stderr), _ = (worker.communicate(timeout=120) for worker in workers)
    assert [worker.returncode for worker in workers] == [START_AGAIN] * 2, stderr[-2000:]
    assert "resuming from step " in stdout
    stopped = int(
        re.search(r"stopped at step ([\d,]+); the same command goes on", stdout)[1].replace(",", "")
    )
    path, damaged = checkpoint_files.newest(tmp_path / "checkpoints")
    assert checkpoint_files.step_of(path) == stopped and not damaged


@pytest.mark.slow
def test_each_worker_keeps_its_rows_in_a_folder_of_its_own(tmp_path):
    """A sweep over all images takes 9.1 of the 14 epochs; the state of the 8th or a later one is
    resumed.
    """
    flags = ("--epochs=14", "--knn_every=0", "--checkpoint_every=1")
    on_disk = (*flags, "--instance_store=disk", f"--rows_dir={tmp_path}/rowsINDEX")
    first, second = start_workers(2, tmp_path / "workers", *on_disk)
    wait_for(
        lambda: (
            8 * (1500 // BATCH) in checkpoint_files.states(tmp_path / "workers" / "checkpoints")
        ),
        first,
    )
    second.kill()
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == START_AGAIN, stderr[-2000:]
    workers = start_workers(2, tmp_path / "workers", *on_disk)
    ended = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ended[0][1][-2000:]
    for index in range(2):
        folders = {
            path.parent
            for path in (tmp_path / f"rows{index}").glob("workers-*/from-step-*/*/*.npz")
        }
        assert {folder.name for folder in folders} == {f"replica-0000{index}-of-00002"}
    alone = subprocess.run(
        arguments(tmp_path / "alone", *flags, "--strategy=mirrored", "--replicas=2"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert alone.returncode == 0, alone.stderr[-2000:]
    got, expected = (rows_and_network(tmp_path / name) for name in ("workers", "alone"))
    part = variables_of(tmp_path / "workers")["instance_ids"]
    for name, value in expected.items():
        np.testing.assert_array_equal(
            got[name], value[part] if name in ("weights", "momentum") else value, err_msg=name
        )

    for index in range(
        2
    ):  # gathered from the disks of both machines, from before the restart and after it
        (folder,) = (tmp_path / f"rows{index}").glob("workers-*")
        shutil.copytree(folder, tmp_path / "gathered", dirs_exist_ok=True)
    flags = (
        f"--run={tmp_path / 'workers'}",
        f"--output={tmp_path / 'new'}",
        f"--rows_dir={tmp_path / 'gathered'}",
    )
    tool = pathlib.Path(__file__).parents[1] / "tools" / "collect_rows.py"
    collected = subprocess.run(
        [sys.executable, str(tool), *flags], capture_output=True, text=True, timeout=300
    )
    assert collected.returncode == 0, collected.stderr[-2000:]
    got, expected = variables_of(tmp_path / "new"), variables_of(tmp_path / "alone")
    for name in ("weights", "momentum", "stamp", "ring"):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def wait_for(condition, process, seconds=120):
    """Until it holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert condition(), process.stderr.read()[-2000:] if process.poll() is not None else "too late"
