"""The plan for a machine that is not there."""

import dataclasses

import pytest

from pic_tf.settings.config import Config
from tools import plan

NO_MACHINE = {"device": 0.0, "host": 0.0, "disk": 0.0}
BILLION = Config(num_instances=10**9, batch_size=4096, epochs=10, backbone="resnet18", width=8)


def test_a_billion_images_by_hand():
    text = plan.plans(dataclasses.replace(BILLION, instance_store="disk"), 64, NO_MACHINE)
    lines = [line.strip() for line in text.splitlines()]
    # A row is 128 (4 + 4) + 8 = 1032 bytes, 16 more on the device; a replica has (131072 + 2 16384)
    # / 64 = 2560.
    assert "2.68 MB  instance store (weights, momentum, stamps)" in lines
    assert (
        "every 32 steps 16.9 MB go there and as much comes back, 528 KB a step" in lines
    )  # 16384 rows in 131072 / 4096
    # 1.032 TB, and what 3 checkpoints of 244,140 steps are apart: 3 x 10 epochs, so all that moves
    # in 2,441,400 steps: 512 rows a step, 1.29 TB.
    assert "rows           at most 1.29 TB on disk, 1.03 TB for all of them" in text.splitlines()
    (device,) = (
        line.split() for line in lines if line.startswith("device  ") and "replicas" not in line
    )
    assert device[0] == "device" and float(device[1]) == pytest.approx(
        1.032e12 / 64 / 1e9, rel=0.1
    )  # and the network
    assert "images         1,000,000,000 from any data set" in text.splitlines()


def test_what_does_not_fit_is_said():
    text = plan.plans(BILLION, 64, {"device": 8.0, "host": 512.0, "disk": 2000.0}).splitlines()
    device, disk = text[-2:]
    assert device.endswith(
        "too little memory or room: device, host, disk"
    )  # three checkpoints of 1.03 TB
    assert "too little" not in disk
    eight = plan.plans(
        BILLION, 64, {"device": 8.0, "host": 512.0, "disk": 170.0}, machines=8
    ).splitlines()
    assert "too little" not in eight[-1]  # 1.29 TB / 8


def test_wrong_input_is_one_sentence():
    with pytest.raises(ValueError, match=r"^expected --num_instances, got none"):
        plan.plans(Config(), 1, NO_MACHINE)
    with pytest.raises(
        ValueError, match=r"^expected --batch_size to be a multiple of the 3 replicas, got 4096"
    ):
        plan.plans(BILLION, 3, NO_MACHINE)
    small = dataclasses.replace(BILLION, num_instances=200_000, order="epoch")
    assert "expected at least" in plan.plans(small, 1, NO_MACHINE).splitlines()[-1]
