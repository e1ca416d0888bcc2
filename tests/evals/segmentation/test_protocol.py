"""Segmenters on scenes: the dilated network, training that goes on, and the whole command."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.evals.segmentation import protocol
from pic_tf.evals.segmentation.folders import open_masks
from pic_tf.evals.segmentation.segmenter import Segmenter
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.models.resnet import resnet
from pic_tf.serving import convert
from pic_tf.serving.open_resnet import Resnet
from pic_tf.settings import flag_files
from tests.evals.detection.test_protocol import tiny_network
from tests.evals.segmentation.test_folders import plain
from tests.evals.transfer.left_state import leave_at
from tools.draw_scenes import draw_scenes

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
SIZE = 32  # pixels of a scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    (folder / "noise").mkdir()
    for i in range(4):
        levels = rng.integers(60, 196, [7, 9, 3]).astype(np.uint8)
        Image.fromarray(levels).resize((90, 70)).save(folder / "noise" / f"{i}.png")
    draw_scenes(
        str(folder / "noise"), folder / "scenes", {"train": 12, "test": 5}, [0, 4], SIZE, 2, 0
    )
    return folder / "scenes"


@pytest.fixture
def settings(scenes, tmp_path, monkeypatch):
    """Settings of three steps with a network of three layers."""
    opened = Resnet("tiny", tiny_network(), SIZE, 1.0)
    monkeypatch.setattr(protocol, "open_resnet", lambda path: opened)
    return EvaluationSettings(
        protocol="segmentation",
        dataset=f"{scenes}:train",
        eval_dataset=f"{scenes}:test",
        output_dir=str(tmp_path / "whole"),
        batch_size=4,
        steps=3,
        decay_steps=(2.0,),
        crop_size=24,
        test_stride=16,
        head_channels=8,
        save_every=2,
        label_fraction=0.7,
    )


def test_an_interrupted_training_goes_on(settings, tmp_path, monkeypatch):
    """A training that goes on from a saved state ends as one that was never interrupted."""
    taken = leave_at(monkeypatch, 2, tmp_path / "whole", tmp_path / "again")
    whole, folder = protocol.run(settings)
    assert folder == str(tmp_path / "whole")
    monkeypatch.setattr(protocol, "classify", lambda *_: [np.ones([SIZE, SIZE], np.uint8)] * 5)
    again, _ = protocol.run(dataclasses.replace(settings, output_dir=str(tmp_path / "again")))
    assert taken == [1, 2, 3, 3]
    states = [dict(np.load(next((tmp_path / n).glob("*.npz")))) for n in ("whole", "again")]
    assert states[0].keys() == states[1].keys() and int(states[0]["done"]) == 3
    for name in states[0]:
        np.testing.assert_array_equal(*(state[name] for state in states), err_msg=name)
    written = json.loads(next((tmp_path / "whole").glob("*.json")).read_text())
    assert written["mIoU"] == whole.values["mIoU"] and written["images"] == 8  # 0.7 of 12
    assert "| segmentation, 3 steps | tiny |" in whole.table()
    with Image.open(next((tmp_path / "whole").glob("*.png"))) as sheet:
        assert sheet.width > 1000
    # Everything was taken for "zero", class 1: all others have no pixel in common with it.
    ious = again.values["IoU_of_class"]
    masks = [np.asarray(Image.open(p.mask)) for p in open_masks_of(settings.eval_dataset)]
    assert ious["zero"] == pytest.approx(100 * np.mean(np.equal(masks, 1)))
    assert ious["four"] == ious["background"] == 0 and ious["nine"] is None
    assert again.values["pixel_accuracy"] == pytest.approx(ious["zero"])


def open_masks_of(name):
    folder, split = name.rsplit(":", 1)
    return open_masks(pathlib.Path(folder), split).pictures


WRONG = {
    "dataset": ("", "expected --dataset as FOLDER:SPLIT of Cityscapes, of Pascal VOC, or"),
    "eval_dataset": ("nothing", "expected FOLDER:SPLIT of Cityscapes, .*, got 'nothing'"),
    "decay_steps": ((), "expected --decay_steps to be rising numbers .*, got none"),
    "batch_size": (9, "expected --batch_size of at most the 8 images, got 9"),
    "scale_range": ((2.0, 0.5), "expected --scale_range=LEAST,LARGEST .*, got .2.0, 0.5.$"),
    "crop_size": (15, "expected --crop_size >= 16, got 15"),
    "test_stride": (25, r"expected --test_stride of at most --crop_size \(24\), got 25"),
}


@pytest.mark.parametrize("flag", WRONG)
def test_wrong_flags(settings, tmp_path, flag):
    value, sentence = WRONG[flag]
    with pytest.raises(ValueError, match=sentence):
        protocol.run(dataclasses.replace(settings, **{flag: value}))
    assert not (tmp_path / "whole").exists()


def test_classes_of_the_test_are_those_of_the_training(settings, tmp_path):
    other = plain(tmp_path / "other", {"a": np.zeros([2, 3], np.uint8)})
    with pytest.raises(ValueError, match=r"expected the same classes in .*, got 'background' in"):
        protocol.run(dataclasses.replace(settings, eval_dataset=f"{other}:train"))


def test_the_last_stage_keeps_its_resolution():
    """Its first convolution against TensorFlow's own with stride 1 and dilation 2."""
    network = resnet(18, "imagenet", 2)
    model = Segmenter(network, 3, channels=4)
    convolutions = [
        x
        for x in model.network.layers
        if x.name.startswith("stage4_") and isinstance(x, keras.layers.Conv2D)
    ]
    assert all(x.strides == (1, 1) for x in convolutions)
    assert [x.dilation_rate for x in convolutions if x.kernel_size == (3, 3)] == [(2, 2)] * 4
    names = ("stage3_block2_relu2", "stage4_block1_1_conv", "stage4_block2_relu2")
    outputs = [model.network.get_layer(name).output for name in names]
    images = tf.random.stateless_normal([1, 64, 96, 3], [0, 0])
    inputs, found, last = keras.Model(model.network.input, outputs)(images)
    assert inputs.shape[1:3] == found.shape[1:3] == last.shape[1:3] == (4, 6)
    kernel = network.get_layer("stage4_block1_1_conv").kernel  # as it was before
    expected = tf.nn.conv2d(inputs, kernel, 1, "SAME", dilations=2)
    # float32 sums of 72 products, perhaps in another order.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert model(images).shape == (1, 64, 96, 3)


def test_all_tensors_of_a_segmenter_learn_and_kernels_decay():
    model = Segmenter(tiny_network(), 2, channels=8)
    norms = [v for v in model.trainable_variables if "gamma" in v.name or "beta" in v.name]
    decaying = [v for v in model.trainable_variables if v.ref() in model._decaying]
    assert len(norms) == 10 and len(decaying) == 7  # 6 kernels and a bias
    assert len(norms) + len(decaying) == len(model.trainable_variables)
    dilations = [x.dilation_rate for x in model.network.layers if hasattr(x, "dilation_rate")]
    assert dilations == [(1, 1), (1, 1), (2, 2), (6, 6), (6, 6), (1, 1)]


@pytest.mark.slow
def test_a_segmenter_learns_scenes_from_scratch(real_photographs, tmp_path):
    """The recipe on digits over photographs, with crops of a quarter of a scene and half the steps,
    in a third of its time: mIoU was 55.0, that of the three classes 38.2, 40.2 and 44.4.
    """
    keras.utils.set_random_seed(0)
    convert.write(resnet(18, "small", 16), tmp_path / "network.safetensors")
    counts = {"train": 1000, "test": 100}
    draw_scenes(str(real_photographs), tmp_path / "scenes", counts, [0, 1, 4], 128, 3, 0)
    recipe = flag_files.from_flagfile(
        str(CONFIGS / "scenes_segmentation.flags"), EvaluationSettings
    )
    settings = dataclasses.replace(
        recipe,
        model=str(tmp_path / "network.safetensors"),
        dataset=f"{tmp_path / 'scenes'}:train",
        eval_dataset=f"{tmp_path / 'scenes'}:test",
        output_dir=str(tmp_path / "out"),
        batch_size=8,
        crop_size=64,
        test_stride=64,
        steps=1000,
        decay_steps=(700.0, 900.0),
    )
    report, _ = protocol.run(settings)
    assert report.values["mIoU"] >= 50
    assert min(report.values["IoU_of_class"][name] for name in ("zero", "one", "four")) >= 30
