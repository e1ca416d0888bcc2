"""Several processes on loopback train the quickstart together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.callbacks import read_metrics
from pic_tf.train import LOST_WORKER

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
BATCH = 66  # a multiple of 2 and of 3


def arguments(output, *more):
    flags = [f"--flagfile={CONFIGS / 'quickstart.flags'}", f"--output_dir={output}", f"--batch_size={BATCH}"]
    return [sys.executable, "-m", "pic_tf.train", *flags, "--tensorboard=false", *more]


def start_workers(count, output, *more):
    """One process a worker, on free ports."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    workers = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    started = []
    for index in range(count):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(arguments(output, *more), env=environment, **pipes))
    return started


def rows_and_network(output):
    reader = tf.train.load_checkpoint(str(output / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VALUE") and n.startswith(("inst", "backb"))]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_equal_one_process_with_as_many_replicas(tmp_path, count):
    short = ("--epochs=2", "--knn_every=2")
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
    assert of_workers.keys() == of_one.keys() and "instances/weights/.ATTRIBUTES/VARIABLE_VALUE" in of_one
    # Two numbers have one sum; three are added in another order: rounding at 6e-8 over 44 steps.
    tolerance = {"rtol": 0, "atol": 0} if count == 2 else {"rtol": 1e-4, "atol": 1e-5}
    for name in of_one:
        np.testing.assert_allclose(of_workers[name], of_one[name], **tolerance, err_msg=name)
    for one, other in zip(*metrics):
        np.testing.assert_allclose(float(one["loss"]), float(other["loss"]), rtol=1e-6)
    assert metrics[0][-1]["knn"] and (tmp_path / "workers" / "backbone" / "saved_model.pb").exists()


def test_a_killed_worker_ends_the_other_and_the_same_command_goes_on(tmp_path):
    command = (2, tmp_path, "--epochs=200", "--knn_every=0", "--checkpoint_every=1")
    first, second = start_workers(*command)
    while not tf.train.latest_checkpoint(str(tmp_path / "checkpoints")) and first.poll() is None:
        time.sleep(0.2)
    second.kill()
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == LOST_WORKER, stderr[-2000:]
    sentence = "error: expected all workers to train together, lost one: start all again with the same command"
    assert stderr.splitlines()[-1].startswith(sentence)

    workers = start_workers(*command)
    line = next((line for line in workers[0].stdout if line.startswith("resuming")), "")
    assert line.startswith("resuming from step "), workers[0].stderr.read()[-2000:]
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
