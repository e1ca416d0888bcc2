"""Detectors on scenes: scenes themselves, batches, training that goes on, and the whole command."""

import dataclasses
import json
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.data.augment import normalise
from pic_tf.data.order import SlidingWindow
from pic_tf.evals.detection import protocol
from pic_tf.evals.detection.detector import Detector, Proposals
from pic_tf.evals.detection.inputs import training_batches
from pic_tf.evals.detection.voc_folder import open_voc
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.models.resnet import resnet
from pic_tf.optim.schedules import WarmupSteps
from pic_tf.serving import convert
from pic_tf.serving.open_resnet import Resnet
from pic_tf.settings import flag_files
from tests.evals.detection.test_readers import voc
from tests.evals.transfer.left_state import leave_at
from tools.draw_scenes import NAMES, draw_scenes

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
SIZE = 48  # pixels of a scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes on pictures of noise, and the weights of a network."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    (folder / "noise").mkdir()
    for i in range(6):
        levels = rng.integers(60, 196, [7, 9, 3]).astype(np.uint8)
        Image.fromarray(levels).resize((90, 70)).save(folder / "noise" / f"{i}.png")
    counts = {"train": 12, "test": 5}
    draw_scenes(str(folder / "noise"), folder / "scenes", counts, [0, 4], SIZE, 2, 0)
    keras.utils.set_random_seed(0)
    convert.write(resnet(18, "small", 16), folder / "network.safetensors")
    return folder


def settings_of(folder, output, **more) -> EvaluationSettings:
    values = {
        "protocol": "voc_detection",
        "model": str(folder / "network.safetensors"),
        "dataset": f"{folder / 'scenes'}:train",
        "eval_dataset": f"{folder / 'scenes'}:test",
        "output_dir": str(output),
        "batch_size": 4,
        "steps": 3,
        "decay_steps": (2.0,),
        "warmup_steps": 1,
        "short_sides": (32.0, 48.0),
        "test_side": 48,
        "long_side": 48,
        "anchor_sizes": (12.0, 20.0),
        "proposals": 20,
        "proposals_learned": 8,
        "save_every": 2,
    }
    return EvaluationSettings(**values | more)


def test_boxes_and_masks_of_scenes_are_exact(scenes, tmp_path):
    data = open_voc(scenes / "scenes", "train")
    assert data.class_names == ("four", "zero") and len(data.pictures) == 12
    for picture in data.pictures:
        mask = np.asarray(
            Image.open(scenes / "scenes/SegmentationClass" / f"{picture.path.stem}.png")
        )
        assert mask.shape == (SIZE, SIZE) and mask.any()
        rest = mask.copy()
        for (x1, y1, x2, y2), kind in zip(
            picture.objects.boxes.astype(int), picture.objects.classes
        ):
            inside = mask[y1:y2, x1:x2] == 1 + NAMES.index(data.class_names[kind])
            assert inside.any(0)[[0, -1]].all()  # ink at every side
            assert inside.any(1)[[0, -1]].all()
            rest[y1:y2, x1:x2] = 0
        assert not rest.any()  # no ink outside of boxes
    again = draw_scenes(
        str(scenes / "noise"), tmp_path / "again", {"train": 12, "test": 5}, [0, 4], SIZE, 2, 0
    )
    assert again.startswith("scenes: 12 of train, 5 of test")
    draw_scenes(str(scenes / "noise"), tmp_path / "more", {"train": 1, "test": 0}, [0], SIZE, 2, 0)
    assert (tmp_path / "more/ImageSets/Main/test.txt").read_text() == ""
    assert len(list((tmp_path / "more/JPEGImages").iterdir())) == 1
    for path in (scenes / "scenes/JPEGImages").iterdir():
        assert path.read_bytes() == (tmp_path / "again/JPEGImages" / path.name).read_bytes()
    with pytest.raises(ValueError, match="expected a new folder as --output"):
        draw_scenes(str(scenes / "noise"), tmp_path / "again", {"train": 1}, [0], SIZE, 2, 0)


def test_batches_hold_images_and_boxes_together(tmp_path):
    """A white box on black, resized and flipped: pixels and edges move alike."""
    folder = voc(
        tmp_path / "VOC", {"x": [("dog", 0, 7, 5, 18, 12)], "y": [("dog", 0, 7, 5, 18, 12)]}
    )
    pixels = np.zeros([20, 30, 3], np.uint8)
    pixels[4:12, 6:18] = 255
    for name in "xy":
        Image.fromarray(pixels).save(folder / f"JPEGImages/{name}.jpg", quality=100)
    batches = training_batches(
        open_voc(folder, "trainval"),
        SlidingWindow(2, 2, 2, 2, 0),
        short_sides=[20, 40],
        long_side=60,
        flip_probability=0.5,
        seed=3,
        start_step=4,
        stop_step=16,
    )
    middle = float(normalise(np.full([1, 1, 1, 3], 128, np.uint8))[0, 0, 0, 0])
    seen = set()
    for step, (images, sizes, boxes, classes, there, steps) in enumerate(batches, 4):
        assert steps.numpy().tolist() == [step, step] and there.numpy().all()
        assert boxes.shape == (2, 1, 4) and (classes.numpy() == 11).all()
        for image, (height, width), box in zip(
            images.numpy(), sizes.numpy().astype(int), boxes.numpy()
        ):
            white = image[:height, :width, 0] > middle
            rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
            edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box[0], edges, atol=1)  # edges are blurred by the resizing
            assert not image[height:].any() and not image[:, width:].any()
            seen.add((height, bool(box[0, 0] < 0.3 * width)))
    assert seen == {(20, True), (20, False), (40, True), (40, False)}


def test_files_of_another_size_are_named(tmp_path):
    folder = voc(tmp_path / "VOC")
    Image.new("RGB", (31, 20)).save(folder / "JPEGImages/000002.jpg")
    with pytest.raises(
        ValueError, match=r"expected 30 x 20 pixels in '.*000002.jpg'.*, got 31 x 20"
    ):
        open_voc(folder, "trainval")
    (folder / "JPEGImages/000002.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"expected an image in '.*000002.jpg'"):
        open_voc(folder, "trainval")


def test_rates_of_the_steps():
    schedule = WarmupSteps(0.02, (5, 8), 4)
    expected = [0.02 * (0.001 + 0.999 * t / 4) for t in range(4)] + [0.02, *[0.002] * 3, 0.0002]
    np.testing.assert_allclose([schedule(t) for t in range(9)], expected, rtol=1e-6)  # float32


def tiny_network() -> keras.Model:
    """Names and strides of a ResNet behind the small stem, without its depth: traced in a second."""
    x = inputs = keras.Input([None, None, 3])
    for name, stride in (("stem", 2), ("stage3_block1", 2), ("stage4_block1", 2)):
        x = keras.layers.Conv2D(16, 3, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="features")(x))


def test_an_interrupted_training_goes_on(scenes, tmp_path, monkeypatch):
    """A training that goes on from a saved state ends as one that was never interrupted."""
    opened = Resnet("tiny", tiny_network(), SIZE, 1.0)
    monkeypatch.setattr(protocol, "open_resnet", lambda path: opened)
    taken = leave_at(monkeypatch, 2, tmp_path / "whole", tmp_path / "again")
    whole, folder = protocol.run(settings_of(scenes, tmp_path / "whole"))
    assert folder == str(tmp_path / "whole")
    nothing = Detections(np.zeros([0, 4]), np.zeros(0), np.zeros(0, int))
    monkeypatch.setattr(protocol, "detect", lambda *_: [nothing] * 5)
    again, _ = protocol.run(settings_of(scenes, tmp_path / "again"))
    assert taken == [1, 2, 3, 3]
    assert again.values["AP50"] == 0 and np.isfinite(whole.values["AP50"])
    states = [dict(np.load(next((tmp_path / n).glob("*.npz")))) for n in ("whole", "again")]
    assert states[0].keys() == states[1].keys() and int(states[0]["done"]) == 3
    for name in states[0]:
        np.testing.assert_array_equal(*(state[name] for state in states), err_msg=name)
    written = json.loads(next((tmp_path / "whole").glob("*.json")).read_text())
    assert written["AP50"] == whole.values["AP50"] and set(written["AP_of_class"]) == {
        "four",
        "zero",
    }
    assert "| detection, 3 steps | tiny |" in whole.table()
    assert len(list((tmp_path / "whole").glob("*.png"))) == 1


WRONG = {
    "dataset": ("", "expected --dataset as FOLDER:SPLIT of Pascal VOC, FILE.json:FOLDER"),
    "eval_dataset": ("nothing", "expected FOLDER:SPLIT of Pascal VOC, .*, got 'nothing'"),
    "decay_steps": ((5.0, 4.0), "expected --decay_steps to be rising numbers .*, got 5,4"),
    "short_sides": ((), "expected --short_sides to be rising numbers .*, got none"),
    "steps": (0, "expected --steps >= 1, got 0"),
    "batch_size": (13, "expected --batch_size of at most the 12 images, got 13"),
}


@pytest.mark.parametrize("flag", WRONG)
def test_wrong_flags(scenes, tmp_path, flag):
    value, sentence = WRONG[flag]
    with pytest.raises(ValueError, match=sentence):
        protocol.run(dataclasses.replace(settings_of(scenes, tmp_path / "x"), **{flag: value}))
    assert not (tmp_path / "x").exists()


def test_classes_of_the_test_are_those_of_the_training(scenes, tmp_path):
    (tmp_path / "s").symlink_to(scenes / "scenes")
    other = tmp_path / "other"
    voc(other, {"x": [("four", 0, 1, 1, 3, 3)]})
    settings = settings_of(scenes, tmp_path / "x", eval_dataset=f"{other}:trainval")
    with pytest.raises(
        ValueError, match=r"expected the same classes in .*, got 'zero' in one of them"
    ):
        protocol.run(settings)
    root = ElementTree.parse(other / "Annotations/x.xml").getroot()
    assert root.findtext("size/width") == "30"


def test_all_tensors_of_a_detector_learn_and_kernels_decay():
    keras.utils.set_random_seed(0)
    model = Detector(tiny_network(), 2, Proposals((12.0, 20.0), (1.0,), 4, 50, 20, 50, 20, 16, 8))
    with_gamma = [v for v in model.trainable_variables if "gamma" in v.name or "beta" in v.name]
    assert len(with_gamma) == 8  # three of the network, one behind the last stage
    decaying = [v for v in model.trainable_variables if v.ref() in model._decaying]
    assert len(decaying) + len(with_gamma) == len(model.trainable_variables) == 21
    images = tf.random.stateless_normal([2, 32, 32, 3], [0, 0])
    boxes = tf.constant([[[4.0, 4, 16, 20], [10, 8, 30, 30]], [[2, 2, 14, 12], [0, 0, 0, 0]]])
    there = tf.constant([[True, True], [True, False]])
    with tf.GradientTape() as tape:
        losses = model.losses_of(
            images,
            tf.fill([2, 2], 32.0),
            boxes,
            tf.constant([[0, 1], [1, 0]]),
            there,
            tf.constant([0, 0]),
        )
        loss = tf.add_n(losses)
    assert all(np.isfinite(losses)) and losses[3] > 0
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.abs(g.numpy()).max() > 0 for g in gradients)


@pytest.mark.slow
def test_a_detector_learns_scenes_from_scratch(real_photographs, scenes, tmp_path):
    """The recipe on digits over photographs: AP50 was 95.7."""
    counts = {"train": 400, "test": 100}
    draw_scenes(str(real_photographs), tmp_path / "scenes", counts, [0, 1, 4], 64, 3, 0)
    recipe = flag_files.from_flagfile(str(CONFIGS / "scenes_detection.flags"), EvaluationSettings)
    settings = dataclasses.replace(
        recipe,
        model=str(scenes / "network.safetensors"),
        dataset=f"{tmp_path / 'scenes'}:train",
        eval_dataset=f"{tmp_path / 'scenes'}:test",
        output_dir=str(tmp_path / "out"),
    )
    report, _ = protocol.run(settings)
    assert report.values["AP50"] >= 90
