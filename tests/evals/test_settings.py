"""Settings of evaluations: limits, defaults, and the flag files with the published protocols."""

import pathlib
import re

import pytest
import tf_keras as keras

from pic_tf.evals.settings import EvaluationSettings, resolve
from pic_tf.serving.exported import Exported, open_exported
from pic_tf.serving.saved_model import export_backbone
from pic_tf.settings import config, flag_files

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "configs"
CARD = {"image_size": 160, "eval_crop": 1.0, "backbone": {"name": "resnet50"}, "training": None}


@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        (
            "linear_in1k",
            "linear",
            {"epochs": 100, "learning_rate": 30, "batch_size": 256, "label_fraction": 1},
        ),
        (
            "semi_in1k_1pct",
            "finetune",
            {"epochs": 60, "learning_rate": 0.05, "label_fraction": 0.01},
        ),
        (
            "semi_in1k_10pct",
            "finetune",
            {"epochs": 30, "learning_rate": 0.05, "label_fraction": 0.1},
        ),
        (
            "finetune_inat18",
            "finetune",
            {"epochs": 100, "learning_rate": 0.025, "weight_decay": 1e-4},
        ),
    ],
)
def test_published_protocols(name, protocol, expected):
    settings = flag_files.from_flagfile(str(CONFIGS / f"{name}.flags"), EvaluationSettings)
    settings = resolve(settings, Exported("runs/pic/backbone", CARD, ""))
    assert settings.protocol == protocol
    assert {name: getattr(settings, name) for name in expected} == expected
    assert (settings.image_size, settings.eval_crop) == (224, 0.875)  # not the card's
    assert settings.output_dir == "runs/pic/evaluation"


def test_every_flag_file_is_a_recipe_of_training_or_an_evaluation():
    evaluations = {
        path.stem for path in CONFIGS.glob("*.flags") if "pic_tf.evaluate" in path.read_text()
    }
    published = {"linear_in1k", "semi_in1k_1pct", "semi_in1k_10pct", "finetune_inat18"}
    assert evaluations == {
        *published,
        *("voc_detection", "scenes_detection", "cityscapes", "scenes_segmentation"),
    }
    for path in CONFIGS.glob("*.flags"):
        flag_files.from_flagfile(
            str(path), EvaluationSettings if path.stem in evaluations else config.Config
        )
        assert f"--flagfile=configs/{path.name}" in path.read_text().splitlines()[0]


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (
            {"protocol": "nonsense"},
            "expected --protocol to be one of knn, linear, finetune, voc_detection, segmentation, got",
        ),
        (
            {"protocol": "linear", "solver": "adam"},
            "expected --solver to be one of sgd, lbfgs, got 'adam'",
        ),
        ({"epochs": 0}, "expected 1 <= --epochs <= 1e6, got 0"),
        ({"knn_k": 0}, "expected --knn_k >= 1, got 0"),
        ({"knn_temperature": 0.0}, "expected 1e-4 <= --knn_temperature <= 1e6, got 0.0"),
        ({"label_fraction": 0.0}, "expected 0 < --label_fraction <= 1, got 0.0"),
        ({"label_fraction": 1.5}, "expected 0 < --label_fraction <= 1, got 1.5"),
        ({"learning_rate": float("nan")}, "expected 0 < --learning_rate <= 1e6, got nan"),
        ({"layer_decay": 0.0}, "expected 0 < --layer_decay <= 1, got 0.0"),
        ({"layer_decay": 1.5}, "expected 0 < --layer_decay <= 1, got 1.5"),
        ({"backbone_rate": -1.0}, "expected 0 <= --backbone_rate"),
        ({"warmup_epochs": -1.0}, "expected 0 <= --warmup_epochs"),
        ({"flip_probability": 2.0}, "expected 0 <= --flip_probability <= 1, got 2.0"),
        ({"crop_scale": (0.5,)}, "expected --crop_scale=LEAST,LARGEST"),
        ({"eval_every": 0}, "expected --eval_every >= 1, got 0"),
        ({"batch_size": 0}, "expected --batch_size >= 1, got 0"),
        ({"image_size": 0}, "expected 1 <= --image_size <= 8192, got 0"),
        ({"eval_crop": 0.0}, "expected 0 < --eval_crop <= 1, got 0.0"),
        ({"seed": -1}, "expected --seed >= 0, got -1"),
        (
            {"label_fraction": 0.5, "label_ids": "names.txt"},
            "expected --label_ids or --label_fraction, got both",
        ),
        (
            {"protocol": "linear", "model": "pixels"},
            r"expected --protocol=knn, .* got linear with sgd: there is no n",
        ),
    ],
)
def test_settings_that_cannot_be(model, flags, sentence):
    settings = EvaluationSettings(**({"model": str(model)} | flags))
    exported = None if settings.model == "pixels" else open_exported(model)
    with pytest.raises(ValueError, match=re.compile(sentence)):
        resolve(settings, exported)


def test_image_size_has_to_be_known(tmp_path):
    inputs = keras.Input([None, None, 3])
    export_backbone(
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)), tmp_path / "backbone"
    )
    exported = open_exported(tmp_path)
    with pytest.raises(
        ValueError, match=r"expected --image_size, got none, and the model card of '.*' names none"
    ):
        resolve(EvaluationSettings(), exported)
    assert resolve(EvaluationSettings(image_size=8), exported).image_size == 8


def test_what_none_stands_for(model):
    exported = open_exported(model)
    linear, tuned = (
        resolve(EvaluationSettings(protocol=p), exported) for p in ("linear", "finetune")
    )
    assert (linear.epochs, linear.learning_rate, tuned.epochs, tuned.learning_rate) == (
        100,
        30.0,
        30,
        0.05,
    )
    assert resolve(EvaluationSettings(protocol="linear", epochs=7), exported).epochs == 7
    assert linear.output_dir == str(model.parent / "evaluation")
    pixels = resolve(EvaluationSettings(model="pixels"), None)
    assert (pixels.image_size, pixels.eval_crop, pixels.output_dir) == (32, 1.0, "runs/pixels")
