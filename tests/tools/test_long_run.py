"""Rows that rest for many steps: what the norm floor is for."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from tqdm import tqdm

from pic_tf.settings import config, defaults
from tools.long_run import report, toy
from tools.long_run.__main__ import floor_of

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "long_run"
SMALL = dict(batch_size=8, window_size=64, window_stride=8, num_negatives=32, embedding_dim=16)
SWEEPS = 3


@pytest.fixture
def problem():
    return toy.Problem(
        defaults.resolve(config.Config(**SMALL), 1024), sweeps=SWEEPS, shrink=1e-9, noise=0.7
    )


def test_rows_collapse_without_the_floor_and_not_with_it(problem, tmp_path):
    with tqdm(disable=True) as progress:
        arms = dict(toy.run(problem, floor, progress) for floor in (None, 0.0))
    assert list(arms) == ["floor 0.04", "no floor"]
    with_floor, without = (
        report.in_sweep(measurements, SWEEPS - 1) for measurements in arms.values()
    )
    new_row = 0.04  # its norm, 0.01 sqrt(D)
    assert np.percentile(with_floor.norms, 99) < 10 * new_row
    assert np.percentile(without.norms, 99) > 1e5 * new_row
    assert with_floor.own_row > 2 * without.own_row
    assert with_floor.loss < without.loss - 0.2
    # Each row is lifted once a sweep at least; rows that left the ring within a sweep may be too.
    assert with_floor.floored >= 1024 and without.floored == 0
    assert all(m.broken == 0 for measurements in arms.values() for m in measurements)

    report.plot(arms, problem, tmp_path / "norms.png")
    assert [path.name for path in tmp_path.iterdir()] == ["norms.png"]


def test_a_resting_row_shrinks_as_asked(problem):
    """The weight decay against the recursion of Eq. 3 with g = 0."""
    rate, rest = 0.03 * 8 / 256, 964  # ((1024 - 64 + 8) / 8 64 - 32) / 8 steps
    matrix = np.array([[1 - rate * problem.row_decay, -rate * 0.9], [problem.row_decay, 0.9]])
    settled = np.linalg.matrix_power(matrix, 200) @ [1.0, 0.0]
    left = np.linalg.matrix_power(matrix, rest) @ settled
    assert left[0] / settled[0] == pytest.approx(1e-9, rel=1e-3)


def test_what_cannot_be_is_named(problem):
    with pytest.raises(
        ValueError,
        match="expected rests long enough to leave 1e-09 of a row, got 244 steps: use more",
    ):
        _ = dataclasses.replace(
            problem, config=dataclasses.replace(problem.config, window_stride=32)
        ).row_decay
    with pytest.raises(
        ValueError, match="expected --floors to be numbers >= 0 or 'default', got 'low'"
    ):
        floor_of("low")
    assert floor_of("default") is None and floor_of("1e-18") == 1e-18


@pytest.mark.slow
def test_the_tool_as_it_is(tmp_path):
    ended = subprocess.run(
        [sys.executable, TOOL, f"--output={tmp_path / 'norms.png'}"],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = re.findall(
        r"^ +(?:\d+ )? *(floor \S+|no floor) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+) +(\d+)$",
        ended.stdout,
        re.MULTILINE,
    )
    assert len(rows) == 8 * 3
    (floor, *with_floor), (none, *without), (least, *float32_only) = rows[-3:]
    assert (floor, none, least) == ("floor 0.0566", "no floor", "floor 1e-18")
    assert float(with_floor[1]) < 0.2 and float(without[1]) > 1e12 and float(float32_only[1]) > 1e12
    assert float(with_floor[2]) > 2 * max(float(without[2]), float(float32_only[2]))
    assert {row[-1] for row in rows} == {"0"}  # rows that are not finite
    assert ended.stdout.splitlines()[-1].startswith(
        "conclusion: of views among 8,192, in sweep 8, with floor 0.0566 "
    )
    assert (tmp_path / "norms.png").stat().st_size > 10_000
