"""Whole runs with LARS, and with LAMB from tensorflow-addons."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from pic_tf.runs import open_data
from pic_tf.settings import check
from tests.short_runs import SMALL, metrics_of, model_of, run, signals_after, variables_of

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")

ADDONS = importlib.util.find_spec("tensorflow_addons") is not None


def learns(tmp_path, **settings):
    run(dataclasses.replace(SMALL, epochs=6, knn_every=0, output_dir=str(tmp_path), **settings))
    rows = metrics_of(tmp_path)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_run_with_lars(tmp_path):
    learns(tmp_path, optimizer="lars", lars_trust_coefficient=0.01)


@pytest.mark.skipif(not ADDONS, reason="needs tensorflow-addons: pip install 'pic_tf[addons]'")
def test_a_run_with_lamb(tmp_path):
    learns(tmp_path, optimizer="lamb")
    settings = dataclasses.replace(SMALL, optimizer="lamb", knn_every=0, output_dir=str(tmp_path))
    model = model_of(open_data.open_data(settings)[0])
    assert type(model.backbone_optimizer).__name__ == "LAMB"


@pytest.mark.skipif(not ADDONS, reason="needs tensorflow-addons: pip install 'pic_tf[addons]'")
def test_lamb_resumes_bit_for_bit(tmp_path, monkeypatch):
    """Its moments are kept apart from the variables that TensorFlow tracks."""
    settings = dataclasses.replace(
        SMALL, optimizer="lamb", epochs=1, knn_every=0, output_dir=str(tmp_path / "whole")
    )
    run(settings)
    signals_after(monkeypatch, 10)
    settings = dataclasses.replace(settings, output_dir=str(tmp_path / "parts"))
    assert run(settings).step == 10
    assert run(settings).finished
    expected, got = variables_of(tmp_path / "whole"), variables_of(tmp_path / "parts")
    assert expected.keys() == got.keys()
    assert sum(name.startswith("backbone_optimizer/") for name in expected) > 30
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.skipif(ADDONS, reason="needs an environment without tensorflow-addons")
def test_lamb_without_addons_is_one_sentence():
    with pytest.raises(
        ValueError, match="expected tensorflow-addons for --optimizer=lamb, got none installed"
    ):
        check.check(dataclasses.replace(SMALL, optimizer="lamb"))
