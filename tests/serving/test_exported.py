"""An export is known by its card and its weights, and one sentence says what is no export."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import RGB
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_model import export_backbone


def network():
    """Images -> 4 features, with batch statistics."""
    inputs = keras.Input([None, None, 3])
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps), name="tiny")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(the network, its export)."""
    keras.utils.set_random_seed(0)
    backbone, path = network(), tmp_path_factory.mktemp("export") / "backbone"
    export_backbone(backbone, path, trained_size=8, eval_crop=0.5)
    return backbone, path


@pytest.fixture
def export(original, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(original[1], tmp_path / "run" / "backbone")


def with_card(export, **changes):
    """Change the card; None removes an entry."""
    card = json.loads((export / "model_card.json").read_text()) | changes
    card = {name: value for name, value in card.items() if value is not None or name not in changes}
    (export / "model_card.json").write_text(json.dumps(card))
    return export


def test_a_run_stands_for_its_export(export):
    for path in (export, str(export), export.parent):
        found = open_exported(path)
        assert (found.path, found.name) == (str(export), "tiny")
        assert (found.card["feature_dim"], found.card["image_size"], found.card["eval_crop"]) == (
            4,
            8,
            0.5,
        )


def test_network_has_the_variables_and_both_modes(original):
    backbone, path = original
    network = open_exported(path).network()
    assert len(network.trainable_variables) == 4 and len(network.variables) == 6
    for one, other in zip(network.trainable_variables, backbone.trainable_weights):
        np.testing.assert_array_equal(one, other)
    images = tf.random.stateless_uniform([2, 8, 8, 3], (0, 0))
    before = [v.numpy() for v in network.variables]
    trained = network(images, training=True)
    moved = [not np.array_equal(v, old) for v, old in zip(network.variables, before)]
    assert sum(moved) == 2  # mean and variance
    assert np.abs(trained - network(images, training=False)).max() > 0.01


def spoiled(name: str, export: pathlib.Path) -> pathlib.Path:
    """Where to look for an export that has this fault."""
    run = export.parent
    if name == "nothing there":
        return run / "elsewhere"
    if name == "plain folder":
        (run / "photographs").mkdir()
        return run / "photographs"
    if name == "file":
        return export / "model_card.json"
    if name == "unfinished run":
        export.rename(run / "moved")
        (run / "checkpoints").mkdir()
        return run
    if name == "no card":
        (export / "model_card.json").unlink()
    if name == "card that is no JSON":
        (export / "model_card.json").write_text("{")
    if name == "card that is no text":
        (export / "model_card.json").write_bytes(b"\xff\xfe\x00")
    if name == "card of another kind":
        (export / "model_card.json").write_text("[1]")
    if name == "card without a version":
        with_card(export, format_version=None)
    if name == "other version":
        with_card(export, format_version=2, pic_tf_version="9.1")
    if name == "card without an entry":
        with_card(export, channels=None)
    if name == "no variables":
        shutil.rmtree(export / "variables")
    return export


NO_GRAPH = "expected an exported backbone at '{path}', got no saved_model.pb there: "
NO_CARD = (
    "expected model_card.json in the export '{path}', got none that can be read ({why}): export it "
    "again with "
)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nothing there", NO_GRAPH + "name a SavedModel, or the folder of a run that has finished"),
        ("plain folder", NO_GRAPH + "name a SavedModel, or the folder of a run that has finished"),
        ("file", NO_GRAPH + "name a SavedModel, or the folder of a run that has finished"),
        (
            "unfinished run",
            NO_GRAPH
            + "the run is not finished; python -m pic_tf.export --run={path} --output=FOLDER exports it as it",
        ),
        ("no card", NO_CARD.replace("{why}", "FileNotFoundError")),
        ("card that is no JSON", NO_CARD.replace("{why}", "JSONDecodeError")),
        ("card that is no text", NO_CARD.replace("{why}", "UnicodeDecodeError")),
        ("card of another kind", NO_CARD.replace("{why}", "TypeError")),
        ("card without a version", NO_CARD.replace("{why}", "KeyError")),
        (
            "other version",
            "expected an export of format 1 in '{path}', got format 2, written by pic_tf 9.1: "
            "export it again with "
            "this version",
        ),
        ("card without an entry", "expected "),
        ("no variables", "expected "),
    ],
)
def test_one_sentence(export, name, sentence):
    path = spoiled(name, export)
    with pytest.raises(ValueError) as caught:
        open_exported(path)
    said = str(caught.value)
    assert said.startswith(sentence.format(path=path)) and "\n" not in said


def test_a_card_tells_the_format_of_images(export):
    """An older card, which names no bits, is of 8; other images than those are refused."""
    with_card(export, bit_depth=None)
    assert open_exported(export).pixels == RGB
    with_card(export, channels=4, bit_depth=16)
    with pytest.raises(
        ValueError, match=r"expected images of 4 channels of 16 bits in 'digits.*got"
    ):
        open_dataset("digits", pixels=open_exported(export).pixels)


def test_fingerprint_stays_with_the_weights(original, export):
    """It does not change with the place, the files' times or the card."""
    fingerprint = open_exported(original[1]).fingerprint
    assert open_exported(export).fingerprint == fingerprint
    assert open_exported(export.rename(export.parent / "other")).fingerprint == fingerprint
    (export.parent / "other" / "saved_model.pb").touch()
    assert (
        open_exported(with_card(export.parent / "other", eval_crop=1.0)).fingerprint == fingerprint
    )


def test_fingerprint_changes_with_one_weight_and_with_the_graph(original, export):
    """In the files themselves, since two exports differ in more than their weights."""
    fingerprints = {open_exported(export).fingerprint}
    kernel = original[0].trainable_weights[0].numpy()
    weights = next((export / "variables").glob("*.data-*"))
    changed = kernel.copy()
    changed[1, 2, 0, 3] = np.nextafter(changed[1, 2, 0, 3], np.float32(1))
    assert weights.read_bytes().count(kernel.tobytes()) == 1
    weights.write_bytes(weights.read_bytes().replace(kernel.tobytes(), changed.tobytes()))
    fingerprints.add(open_exported(export).fingerprint)
    graph = bytearray((export / "saved_model.pb").read_bytes())
    graph[len(graph) // 2] ^= 1
    (export / "saved_model.pb").write_bytes(graph)
    fingerprints.add(open_exported(export).fingerprint)
    assert len(fingerprints) == 3
