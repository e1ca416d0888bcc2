"""Flags of an evaluation that its protocol would ignore."""

import dataclasses
import pathlib

import pytest

from pic_tf.evals import protocols
from pic_tf.evals.belonging import check_protocol
from pic_tf.evals.settings import PROTOCOLS, EvaluationSettings
from pic_tf.settings import flag_files


@pytest.mark.parametrize(
    "protocol, flag, owners",
    [
        ("segmentation", {"backbone_rate": 0.1}, "finetune"),
        ("segmentation", {"label_ids": "1percent.txt"}, "knn or linear or finetune or .*"),
        ("segmentation", {"test_side": 64}, "voc_detection"),
        ("voc_detection", {"crop_size": 64}, "segmentation"),
        ("voc_detection", {"epochs": 3}, "linear or finetune"),
        ("finetune", {"steps": 3}, "voc_detection or segmentation"),
        ("finetune", {"solver": "lbfgs"}, "linear or linear --solver=lbfgs"),
        ("linear", {"layer_decay": 0.5}, "finetune"),
        ("linear", {"knn_k": 5}, "knn"),
        ("knn", {"batch_size": 64}, "linear or finetune or voc_detection or segmentation"),
    ],
)
def test_a_flag_of_another_protocol_is_refused_before_anything_is_read(protocol, flag, owners):
    settings = EvaluationSettings(protocol=protocol, model="nothing", dataset="nothing", **flag)
    [name] = flag
    sentence = f"^expected --{name} with --protocol={owners} only, got it with {protocol}: leave"
    with pytest.raises(ValueError, match=sentence):
        protocols.run(settings)


def test_lbfgs_takes_no_flag_of_a_training():
    settings = EvaluationSettings(protocol="linear", solver="lbfgs")
    check_protocol(settings)
    with pytest.raises(ValueError, match=r"--epochs .* only, got it with linear --solver=lbfgs"):
        check_protocol(dataclasses.replace(settings, epochs=3))


def test_defaults_and_published_recipes_are_taken():
    for protocol in PROTOCOLS:
        check_protocol(EvaluationSettings(protocol=protocol))
    recipes = [
        path
        for path in pathlib.Path("configs").glob("*.flags")
        if "pic_tf.evaluate" in path.read_text().splitlines()[0]
    ]
    assert len(recipes) >= 7
    for path in recipes:
        check_protocol(flag_files.from_flagfile(str(path), EvaluationSettings))
