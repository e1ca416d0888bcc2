"""A classifier that an evaluation leaves, and the command that uses it."""

import csv
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.evals.predictions import PredictionSettings, predict
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_classifier import LinearClassifier, open_classifier, save_classifier
from tests.evals.evaluation import COLOURS, pixels_of, run
from tests.processes import commands_that_fork

NAMES = sorted(COLOURS)
PROTOCOLS = {
    "lbfgs": {"protocol": "linear", "solver": "lbfgs"},
    "sgd": {"protocol": "linear", "epochs": 2, "batch_size": 20, "learning_rate": 20.0},
    "finetune": {"protocol": "finetune", "epochs": 2, "batch_size": 20, "learning_rate": 0.3},
}


@pytest.fixture(scope="module")
def judged(folder, model, tmp_path_factory):
    """protocol -> (report, folder of the classifier)."""
    made = {}
    for name, flags in PROTOCOLS.items():
        output = tmp_path_factory.mktemp(name)
        found, _ = run(folder, model, output, **flags)
        (place,) = output.glob("*_classifier")
        made[name] = found, place
    return made


@pytest.mark.parametrize("name", PROTOCOLS)
def test_predictions_are_those_of_the_evaluation(judged, folder, tmp_path, name):
    """The CSV file, the signature of images and that of files count the same confusions."""
    found, place = judged[name]
    output = tmp_path / "predictions.csv"
    line = predict(
        PredictionSettings(model=str(place), dataset=str(folder / "val"), output=str(output))
    )
    assert line == f"21 images with a class: {output}"
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    pixels, truth = pixels_of(folder, "val")
    paths = sorted(str(path) for path in (folder / "val").rglob("*.png"))
    assert [row["name"] for row in rows] == paths
    model, _ = open_classifier(place)
    answers = model.signatures["serving_default"](images=tf.constant(pixels, tf.float32))
    files = tf.constant([pathlib.Path(path).read_bytes() for path in paths])
    encoded = model.signatures["encoded"](encoded=files)
    confusion = np.zeros([3, 3], int)
    for i, row in enumerate(rows):
        confusion[truth[i], NAMES.index(row["class"])] += 1
        assert (
            row["class"]
            == answers["class"][i].numpy().decode()
            == encoded["class"][i].numpy().decode()
        )
        # Six digits are written, of probabilities in float32.
        assert abs(float(row["probability"]) - answers["probabilities"][i].numpy().max()) < 2e-6
    np.testing.assert_array_equal(confusion, found.confusion)
    np.testing.assert_allclose(tf.reduce_sum(answers["probabilities"], 1), 1, atol=1e-6)


def test_card(judged, model):
    """Class names and the figures of the evaluation, for programs and for people."""
    found, place = judged["finetune"]
    card = json.loads((place / "model_card.json").read_text())
    assert card["class_names"] == NAMES and card["figures"] == found.figures()
    assert card["backbone"] == open_exported(model).card
    text = (place / "model_card.md").read_text()
    assert "\npipeline_tag: image-classification\n" in text
    assert text.split("---\n\n")[1].startswith("# Classifier of 3 classes on tiny\n")
    assert f"- top1: {found.top1}\n" in text and "- classes: blue, green, red\n" in text


def test_a_class_whose_name_is_not_utf8_and_an_image_that_is_none(folder, model, tmp_path):
    exported, place = open_exported(model), tmp_path / "classifier"
    zeros = np.zeros([exported.card["feature_dim"], 2], np.float32), np.zeros(2, np.float32)
    views = {"image_size": 8, "eval_crop": 1.0, "figures": {}}
    names = ("caf\udce9", "tea")
    linear = LinearClassifier(exported.network(), *zeros)
    save_classifier(linear, place, exported=exported, class_names=names, **views)
    loaded, card = open_classifier(place)
    assert card["class_names"] == list(names)
    answers = loaded.signatures["serving_default"](images=tf.zeros([1, 8, 8, 3]))
    assert answers["class"].numpy().tolist() == [b"caf\xe9"]
    files = [(folder / "val" / "red" / "red01.png").read_bytes(), b"none"]
    answers = loaded.signatures["encoded"](encoded=tf.constant(files))
    assert answers["class"].numpy().tolist() == [b"caf\xe9", b""]
    assert answers["decoded"].numpy().tolist() == [True, False]
    assert answers["probabilities"].numpy().tolist() == [[0.5, 0.5], [0, 0]]


def test_fine_tuned_weights_are_in_it_and_fixed_ones_unchanged(judged, model):
    before = [v.numpy() for v in open_exported(model).network().variables]
    for name in PROTOCOLS:
        network = open_classifier(judged[name][1])[0].network
        moved = [not np.array_equal(v, old) for v, old in zip(network.variables, before)]
        assert all(moved) if name == "finetune" else not any(moved), name


def test_no_classifier_without_features_of_images(folder, model, tmp_path):
    run(folder, model, tmp_path, knn_k=3)
    run(folder, "pixels", tmp_path, protocol="linear", solver="lbfgs")
    assert not list(tmp_path.glob("*_classifier"))


def test_broken_images_have_empty_cells(judged, folder, tmp_path):
    data = shutil.copytree(folder / "val", tmp_path / "data")
    (data / "red" / "red01.png").write_bytes((data / "red" / "red01.png").read_bytes()[:100])
    settings = PredictionSettings(
        model=str(judged["lbfgs"][1]),
        dataset=str(data),
        output=str(tmp_path / "out.csv"),
        max_broken=0.1,
    )
    assert predict(settings) == f"20 images with a class, 1 broken ones without: {settings.output}"
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "name,class,probability" and len(lines) == 22
    assert [line for line in lines if line.endswith(",,")] == [f"{data / 'red' / 'red01.png'},,"]


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"model": ""}, "expected --model, got none: name it"),
        ({"dataset": ""}, "expected --dataset, got none: name it"),
        ({"model": "BACKBONE"}, "expected a classifier of this version in .*, got another SavedM"),
        ({"model": "PARENT"}, "expected a classifier .* got no saved_model.pb there: name one of"),
        ({"model": "missing"}, "expected a classifier .* got no saved_model.pb there: check the p"),
        ({"dataset": "missing"}, "expected a folder of images at 'missing'"),
        ({"output": "missing/out.csv"}, "expected a CSV file in a folder that is there, got"),
        ({"output": "/"}, "expected a CSV file in a folder that is there, got"),
        ({"max_broken": 2.0}, "expected 0 <= --max_broken <= 1, got 2"),
    ],
)
def test_wrong_input_gets_one_sentence(judged, folder, model, tmp_path, changes, sentence):
    place = judged["lbfgs"][1]
    words = {"BACKBONE": str(model), "PARENT": str(place.parent)}
    changes = {name: words.get(value, value) for name, value in changes.items()}
    given = {"model": str(place), "dataset": str(folder), "output": str(tmp_path / "out.csv")}
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        predict(PredictionSettings(**(given | changes)))
    assert not (tmp_path / "out.csv").exists()


def test_a_classifier_is_no_backbone(judged):
    with pytest.raises(ValueError, match=r"^expected an exported backbone at .*, got a classifier"):
        open_exported(judged["sgd"][1])


def test_command(judged, folder, tmp_path):
    arguments = [f"--model={judged['lbfgs'][1]}", f"--dataset={folder / 'val'}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with commands_that_fork() as command:
        ended = command(
            "pic_tf.predict", [*arguments, f"--output={tmp_path / 'p.csv'}"], environment, 120
        )
        wrong = command("pic_tf.predict", arguments[:1], environment, 120)
        told = command("pic_tf.predict", ["--help"], environment, 120)
    assert ended.code == 0 and ended.stdout == f"21 images with a class: {tmp_path / 'p.csv'}\n"
    assert (wrong.code, wrong.stderr) == (1, "error: expected --dataset, got none: name it\n")
    assert told.code == 0 and "--output: CSV file to write" in told.stdout
