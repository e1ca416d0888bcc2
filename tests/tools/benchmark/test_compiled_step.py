"""Descriptions and tables of compiled steps; `.ci/jax` exports and runs them."""

import numpy as np
import pytest

from tools.benchmark.compiled_export import _recipe
from tools.benchmark.compiled_step import GOALS, table


@pytest.mark.parametrize(
    ("value", "recipe"),
    [
        (np.zeros([3, 2], np.float32), {"fill": 0.0}),
        (np.array(7), {"fill": 7}),
        (np.tile(np.eye(2), (5, 1, 1)), {"rows": [[1.0, 0.0], [0.0, 1.0]]}),
        (np.arange(5, 12), {"range": 5}),
        (np.array([1.0, 3.0]), {"array": "key"}),
    ],
)
def test_a_value_is_described_shortly(value, recipe):
    arrays = {}
    assert _recipe(value, "key", arrays, exact=False) == recipe
    assert list(arrays) == (["key"] if "array" in recipe else [])


def test_many_floats_travel_as_their_distribution_unless_they_are_compared():
    value = np.random.default_rng(0).normal(2.0, 3.0, [100, 100]).astype(np.float32)
    (mean, stddev) = _recipe(value, "key", {}, exact=False)["normal"]
    # Standard errors of 10,000 numbers: 0.03 and 0.02.
    assert mean == pytest.approx(2.0, abs=0.15) and stddev == pytest.approx(3.0, abs=0.1)
    assert _recipe(value, "key", {}, exact=True) == {"array": "key"}


def test_goals_stand_below_the_table():
    _, above, below, limit = GOALS[0]
    figures = {"step_ms": 2.0, "quartiles_ms": [1.0, 3.0], "memory_bytes": 2**20}
    settings = {
        above: figures | {"queue_ms": 3.0},
        below: figures | {"queue_ms": 2.0},
        "other": {"failed": "no memory"},
    }
    report = {"device": "X", "jax": "0", "tensorflow": "0", "settings": settings, "skipped": ["y"]}
    lines = table(report).splitlines()
    assert f"| {above} | 2.00 | 1.00 .. 3.00 | 3.00 | 1 |" in lines
    assert "| other | failed: no memory | | | |" in lines
    assert "| y | skipped: no time left | | | |" in lines
    assert lines[-1].endswith(f"1.500, goal <= {limit}: NOT met")
