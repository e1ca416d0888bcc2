"""Recipes stand for what they stood for when each of them said all of it, and say no more than
is needed.
"""

import dataclasses
import json
import pathlib
import shutil

import pytest

from pic_tf.evals.settings import EvaluationSettings
from pic_tf.evals.settings import resolve as resolve_evaluation
from pic_tf.serving.exported import Exported
from pic_tf.settings import defaults, flag_files, quantities

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
BEFORE = json.loads((pathlib.Path(__file__).parent / "golden" / "recipes.json").read_text())
CARD = {"image_size": 160, "eval_crop": 1.0, "backbone": {"name": "resnet50"}, "training": None}
SIZES = {"cifar10": 50_000, "digits": 1500, "quickstart": 4000, "in21k_100ep": 14_197_122}
IMAGENET = 1_281_167
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.flags"))
DENSE = {"voc_detection", "scenes_detection", "cityscapes", "scenes_segmentation"}
EVALUATIONS = {*BEFORE["evaluate"], *DENSE}


def resolved(name: str, folder: pathlib.Path = CONFIGS, replicas: int = 1) -> dict:
    """All settings of a recipe by name, None filled in."""
    path = str(folder / f"{name}.flags")
    if name in EVALUATIONS:
        settings = flag_files.from_flagfile(path, EvaluationSettings)
        settings = resolve_evaluation(settings, Exported("runs/pic/backbone", CARD, ""))
    else:
        settings = defaults.resolve(
            flag_files.from_flagfile(path), SIZES.get(name, IMAGENET), replicas
        )
    return dataclasses.asdict(settings)


@pytest.mark.parametrize(
    "kind, name",
    [(kind, name) for kind, of_kind in BEFORE.items() for name in of_kind if name != "every"],
)
def test_every_setting_is_what_it_was(kind, name):
    found = resolved(name)
    for setting, value in (BEFORE[kind]["every"] | BEFORE[kind][name]).items():
        assert found[setting] == (tuple(value) if isinstance(value, list) else value), setting


def test_nothing_is_left_out():
    before = {name for of_kind in BEFORE.values() for name in of_kind} - {"every"}
    assert set(RECIPES) - before == {"in1k", "in21k_100ep", "quickstart", "continued"} | DENSE


@pytest.mark.parametrize("replicas", [1, 8, 64])
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("in1k")])
def test_the_papers_table(name, replicas):
    """Sections 4.1 and 4.2, on any number of accelerators that the batch can be divided among."""
    found = resolved(name, replicas=replicas)
    epochs = 200 if name == "in1k" else int(name.split("ep")[0].split("_")[-1])
    paper = dict(
        num_instances=IMAGENET,
        epochs=epochs,
        warmup_epochs=epochs / 40,
        batch_size=512,
        temperature=0.2,
    )
    paper |= dict(
        learning_rate=0.03,
        momentum=0.9,
        weight_decay=1e-4,
        backbone="resnet50",
        head="mlp",
        hidden_dim=2048,
    )
    paper |= dict(
        embedding_dim=128,
        image_size=224,
        augmentation="simclr",
        similarity="cosine",
        optimizer="sgd",
    )
    paper |= dict(
        window_size=131_072, window_stride=16_384, num_negatives=65_536, weight_correction=True
    )
    if found["order"] == "epoch":
        paper |= dict(window_size=IMAGENET, window_stride=IMAGENET)
    if "full_softmax" in name:
        paper |= dict(num_negatives=IMAGENET)
    assert {setting: found[setting] for setting in paper} == paper
    assert (found["order"] == "epoch") == ("epoch_order" in name or "full_softmax" in name)
    assert bool(found["crops"]) == ("multicrop" in name)
    assert name == "in1k" or found["output_dir"] == f"runs/{name}"


def test_larger_data_has_the_window_of_imagenet():
    config = defaults.resolve(
        flag_files.from_flagfile(str(CONFIGS / "in21k_100ep.flags")), SIZES["in21k_100ep"]
    )
    assert (config.window_size, config.window_stride, config.num_negatives) == (
        131_072,
        16_384,
        65_536,
    )
    assert quantities.steps_per_epoch(config) == 27_728
    assert quantities.resting_steps(config) == pytest.approx(220_000, rel=0.01)
    assert quantities.shrinking(config)[1] == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_nothing_that_would_be_so_anyway(name, tmp_path):
    shutil.copytree(CONFIGS, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.flags"
    lines = path.read_text().splitlines()
    whole = resolved(name)
    for i, line in enumerate(lines):
        # --num_instances is checked and changes nothing; the length stands in every recipe that has
        # it in its name.
        if line.startswith("--") and not line.startswith(("--num_instances=", "--epochs=")):
            path.write_text("\n".join(lines[:i] + lines[i + 1 :]))
            assert resolved(name, tmp_path) != whole, line
