"""Which strategy is chosen, and one sentence where it cannot be had."""

import json

import pytest
import tensorflow as tf

from pic_tf.replicas import devices

CLUSTER = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
VARIABLES = ("TF_CONFIG", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "TPU_NAME")


def set_environment(monkeypatch, environment):
    """These variables and no others that name devices, on a machine without GPUs."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("needs a machine without GPUs")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, "none"),
        ({"TF_CONFIG": json.dumps(CLUSTER)}, "multi_worker"),
        ({"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1"]}})}, "none"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "multi_worker"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "none"),
        ({"TPU_NAME": "local"}, "tpu"),
    ],
)
def test_auto(monkeypatch, environment, expected):
    set_environment(monkeypatch, environment)
    assert devices.choose() == expected


@pytest.mark.parametrize(
    "name, replicas, environment, sentence",
    [
        ("mirrored", 0, {}, "expected several GPUs for --strategy=mirrored, got none"),
        ("none", 2, {}, "expected --replicas with --strategy=mirrored only, got it with none"),
        ("multi_worker", 0, {}, "expected a cluster in TF_CONFIG or a Slurm step"),
        ("multi_worker", 0, {"SLURM_PROCID": "0"}, "expected a Slurm step with one task a machine"),
        ("auto", 0, {"TF_CONFIG": "not json"}, "expected TF_CONFIG like"),
        ("auto", 0, {"TF_CONFIG": "[1]"}, "expected TF_CONFIG like"),
    ],
)
def test_what_is_not_there(monkeypatch, name, replicas, environment, sentence):
    set_environment(monkeypatch, environment)
    with pytest.raises(ValueError, match=sentence):
        devices.open_strategy(name, replicas)


@pytest.mark.parametrize(
    "strategy, replicas, threads, flag",
    [("none", 0, 3, "--intra_op_threads"), ("mirrored", 5, 0, "--replicas")],
)
def test_devices_stay_those_of_the_first_operation(monkeypatch, strategy, replicas, threads, flag):
    set_environment(monkeypatch, {})
    tf.zeros([])
    with pytest.raises(ValueError, match=rf"^expected {flag} as in the first call of a process,"):
        devices.set_up_tensorflow(strategy, replicas, threads)


def test_one_replica_is_the_default_strategy():
    assert devices.open_strategy("none").num_replicas_in_sync == 1
    assert devices.is_chief(tf.distribute.get_strategy())
    assert devices.describe(tf.distribute.get_strategy()) == "1 replica"
