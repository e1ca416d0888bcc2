"""What an export says of itself, to programs and to people."""

import json

import pytest
import tensorflow as tf
import tf_keras as keras
import yaml

import pic_tf
from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.serving.model_card import write_card
from pic_tf.serving.saved_model import export_backbone

TRAINING = {
    "dataset": "photographs",
    "images": 1234567,
    "step": 200,
    "figures": {"knn": 0.5},
    "flags": {"epochs": 3, "crop_scale": (0.08, 1.0), "crops": ""},
}


def network(seed: int) -> keras.Model:
    """3 x 3 x 3 x 5 weights, and four numbers by channel for the batch normalisation, of which
    two are learned.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input([None, None, 3])
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(5, 3, use_bias=False)(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps), name="tiny")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Folders of exports, by name."""
    root = tmp_path_factory.mktemp("exports")
    run = {"trained_size": 160, "eval_crop": 0.875, "training": TRAINING}
    export_backbone(network(0), root / "one", **run)
    export_backbone(network(0), root / "equal", **run)
    export_backbone(network(1), root / "other", 32)
    export_backbone(network(0), root / "plain")
    return root


def test_json(exports):
    assert json.loads((exports / "one" / "model_card.json").read_text()) == {
        "format_version": 1,
        "pic_tf_version": pic_tf.__version__,
        "tensorflow_version": tf.__version__,
        "backbone": {"name": "tiny", "parameters": 3 * 3 * 3 * 5 + 4 * 5},
        "feature_dim": 5,
        "channels": 3,
        "bit_depth": 8,
        "image_size": 160,
        "input_size": None,
        "eval_crop": 0.875,
        "preprocessing": {
            "range": [0, 1],
            "mean": list(MEAN),
            "stddev": list(STDDEV),
            "inside": True,
            "backbone_input": "normalised",
        },
        "training": {**TRAINING, "flags": {"epochs": 3, "crop_scale": [0.08, 1.0], "crops": ""}},
    }


def test_what_the_card_says_of_the_input_is_so(exports):
    """Images in [0, 1], normalised inside: an image of the mean colour gives what a network
    without bias makes of 0.
    """
    card = json.loads((exports / "one" / "model_card.json").read_text())
    serve = tf.saved_model.load(str(exports / "one")).signatures["serving_default"]
    images = tf.fill([1, 6, 6, 1], 1.0) * tf.constant(card["preprocessing"]["mean"])
    features = serve(images=images)["features"]
    assert features.shape == (1, card["feature_dim"])
    assert tf.reduce_max(tf.abs(features)) < 1e-5  # x / s - m / s in float32
    assert tf.reduce_max(tf.abs(serve(images=images + 0.2)["features"])) > 0.1


def test_text(exports):
    text = (exports / "one" / "model_card.md").read_text()
    head, text = text.removeprefix("---\n").split("---\n\n", 1)
    assert yaml.safe_load(head) == {
        "library_name": "tf-keras",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["tensorflow", "self-supervised-learning", "pic_tf"],
    }
    lines = text.splitlines()
    assert lines[0] == "# tiny, pretrained without labels"
    assert f"Made by pic_tf {pic_tf.__version__} with TensorFlow {tf.__version__}." in lines
    assert "- parameters: 155; features: 5" in lines
    assert (
        "- side of a training view: 160 pixels; central crop in evaluation: 0.875 of the short side"
        in lines
    )
    for line in (
        "- dataset: photographs",
        "- step: 200",
        "### flags",
        "- epochs: 3",
        "- crop_scale: (0.08, 1.0)",
    ):
        assert line in lines
    # Every heading stands by itself, so that Markdown takes it for one.
    for i, line in enumerate(lines):
        if line.startswith("#") and i:
            assert lines[i - 1] == lines[i + 1] == ""
    assert text.endswith("```\n") and text.count("```") == 2


def test_a_folder_whose_name_is_not_utf8(exports, tmp_path):
    card = json.loads((exports / "one" / "model_card.json").read_text())
    card["training"]["dataset"] = "caf\udce9"
    write_card(tmp_path, card)
    assert json.loads((tmp_path / "model_card.json").read_text()) == card
    assert "- dataset: caf?\n" in (tmp_path / "model_card.md").read_text("utf-8")


@pytest.mark.parametrize(
    "name, image_size, side", [("other", 32, "32 pixels"), ("plain", None, "not recorded")]
)
def test_nothing_is_made_up_where_it_is_not_known(exports, name, image_size, side):
    card = json.loads((exports / name / "model_card.json").read_text())
    text = (exports / name / "model_card.md").read_text()
    assert (card["image_size"], card["eval_crop"], card["training"]) == (image_size, 1.0, None)
    assert text.split("---\n\n")[1].startswith("# tiny\n") and "## Training" not in text
    assert (
        f"- side of a training view: {side}; central crop in evaluation: 1.0 of the short side\n"
        in text
    )


def test_equal_runs_have_equal_cards(exports):
    for file in ("model_card.json", "model_card.md"):
        one, equal, other = (
            (exports / name / file).read_bytes() for name in ("one", "equal", "other")
        )
        assert one == equal and one != other
