"""Settings of evaluations, and the flag files with the published protocols."""

import pathlib

import pytest

from pic_tf.evals.settings import Settings, resolve
from pic_tf.serving.exported import Exported
from pic_tf.settings import config, flag_files

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "configs"
CARD = {"image_size": 160, "eval_crop": 1.0, "backbone": {"name": "resnet50"}, "training": None}


@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        ("linear_in1k", "linear", {"epochs": 100, "learning_rate": 30, "batch_size": 256, "label_fraction": 1}),
        ("semi_in1k_1pct", "finetune", {"epochs": 60, "learning_rate": 0.05, "label_fraction": 0.01}),
        ("semi_in1k_10pct", "finetune", {"epochs": 30, "learning_rate": 0.05, "label_fraction": 0.1}),
        ("finetune_inat18", "finetune", {"epochs": 100, "learning_rate": 0.025, "weight_decay": 1e-4}),
    ],
)
def test_published_protocols(name, protocol, expected):
    settings = flag_files.from_flagfile(str(CONFIGS / f"{name}.flags"), Settings)
    settings = resolve(settings, Exported("runs/pic/backbone", CARD, ""))
    assert settings.protocol == protocol
    assert {name: getattr(settings, name) for name in expected} == expected
    assert (settings.image_size, settings.eval_crop) == (224, 0.875)  # not the card's
    assert settings.output_dir == "runs/pic/evaluation"


def test_every_flag_file_is_a_recipe_of_training_or_an_evaluation():
    evaluations = {path.stem for path in CONFIGS.glob("*.flags") if "pic_tf.evaluate" in path.read_text()}
    assert evaluations == {"linear_in1k", "semi_in1k_1pct", "semi_in1k_10pct", "finetune_inat18"}
    for path in CONFIGS.glob("*.flags"):
        flag_files.from_flagfile(str(path), Settings if path.stem in evaluations else config.Config)
        assert f"--flagfile=configs/{path.name}" in path.read_text().splitlines()[0]
