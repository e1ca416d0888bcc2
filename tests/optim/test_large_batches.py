"""Whole runs with LARS, and with LAMB from tensorflow-addons."""

import dataclasses
import importlib.util

import pytest

from pic_tf import pretrain, validation
from tests.test_pretrain import ONE, SMALL, metrics_of, run

ADDONS = importlib.util.find_spec("tensorflow_addons") is not None


def learns(tmp_path, **settings):
    run(dataclasses.replace(SMALL, epochs=6, knn_every=6, output_dir=str(tmp_path), **settings))
    rows = metrics_of(tmp_path)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_run_with_lars(tmp_path):
    learns(tmp_path, optimizer="lars", lars_trust_coefficient=0.01)


@pytest.mark.skipif(not ADDONS, reason="needs tensorflow-addons: pip install 'pic_tf[addons]'")
def test_a_run_with_lamb(tmp_path):
    learns(tmp_path, optimizer="lamb")
    settings = dataclasses.replace(SMALL, optimizer="lamb", knn_every=0, output_dir=str(tmp_path))
    model = pretrain.build_model(pretrain.open_data(settings)[0], ONE)
    assert type(model.backbone_optimizer).__name__ == "LAMB"


@pytest.mark.skipif(ADDONS, reason="needs an environment without tensorflow-addons")
def test_lamb_without_addons_is_one_sentence():
    with pytest.raises(ValueError, match="expected tensorflow-addons for --optimizer=lamb, got none installed"):
        validation.check(dataclasses.replace(SMALL, optimizer="lamb"))
