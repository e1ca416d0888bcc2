"""Saliency maps against loops in NumPy, a whole comparison of two networks, and wrong input."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.data.augment import normalise
from pic_tf.data.crops import central_view
from pic_tf.data.sources.folder import open_folder
from pic_tf.look import saliency_sheets
from pic_tf.look.saliency_maps import accuracy_by_similarity, random_maps, saliency, similarity
from pic_tf.look.settings import SaliencySettings, check_saliency
from pic_tf.models.resnet import resnet
from pic_tf.serving import convert
from pic_tf.serving.exported import open_exported
from pic_tf.serving.open_resnet import feature_maps, open_resnet
from pic_tf.serving.saved_classifier import LinearClassifier, save_classifier
from pic_tf.serving.saved_model import export_backbone
from tests.look.files import lines_of
from tests.short_runs import picture_folder

SIZE = 24  # pixels: maps of 3 x 3 behind the small stem


def test_saliency_is_the_length_of_the_features_as_a_share():
    maps = np.random.default_rng(0).normal(size=[2, 3, 4, 5]).astype(np.float32)
    maps[1, 2, 3] = 0
    found = saliency(maps).numpy()
    for i in range(2):
        lengths = [
            [sum(float(v) ** 2 for v in maps[i, y, x]) ** 0.5 for x in range(4)] for y in range(3)
        ]
        expected = np.array(lengths) / sum(map(sum, lengths))
        np.testing.assert_allclose(found[i], expected, rtol=1e-6)  # float32 against float64
    assert found[1, 2, 3] == 0
    np.testing.assert_allclose(saliency(np.zeros([1, 2, 3, 4])).numpy(), np.full([1, 2, 3], 1 / 6))


def test_similarity_is_the_sum_of_the_minima():
    one, other = random_maps((7, 3, 4), 0), random_maps((7, 3, 4), 1)
    expected = [
        sum(min(one[i, y, x], other[i, y, x]) for y in range(3) for x in range(4)) for i in range(7)
    ]
    np.testing.assert_allclose(similarity(one, other), expected, rtol=1e-14)  # both in float64
    np.testing.assert_allclose(similarity(one, one), 1, rtol=1e-14)
    left, right = np.zeros([2, 1, 2, 2])
    left[0, 0, 0] = right[0, 1, 1] = 1
    assert similarity(left, right) == 0
    np.testing.assert_allclose(one.sum((1, 2)), 1, rtol=1e-14)


def test_accuracy_by_similarity():
    similarities = np.array([0.9, 0.1, 0.5, 0.2, 0.7])
    right = np.array([True, False, True, True, False])
    means, accuracies = accuracy_by_similarity(similarities, right, 2)
    np.testing.assert_allclose(means, [(0.1 + 0.2 + 0.5) / 3, (0.7 + 0.9) / 2])
    np.testing.assert_allclose(accuracies, [2 / 3, 1 / 2])
    assert len(accuracy_by_similarity(similarities, right, 10)[0]) == 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pictures of two classes, and files of weights of two networks."""
    folder = tmp_path_factory.mktemp("saliency")
    picture_folder(folder / "images")
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        network = resnet(18, "small", 2)
        for layer in network.layers:  # blocks that start as the identity would hide mistakes
            if layer.name.endswith("_bn"):
                layer.gamma.assign(np.random.default_rng(seed).uniform(0.5, 1.5, layer.gamma.shape))
        convert.write(network, folder / f"network{seed}.safetensors")
    return folder


def settings_of(world, output, **more) -> SaliencySettings:
    values = {
        "model": str(world / "network1.safetensors"),
        "dataset": str(world / "images"),
        "image_size": SIZE,
        "eval_crop": 1.0,
        "count": 3,
        "output": str(output),
    }
    return SaliencySettings(**values | more)


def predictions(world, wrong: int) -> list[tuple[str, str]]:
    """(file, class) of the held-out images, the first `wrong` of them the other class."""
    files = sorted((world / "images/val").glob("*/*"))
    other = {"class0": "class1", "class1": "class0"}
    names = [file.parent.name for file in files]
    return [(str(f), other[n] if i < wrong else n) for i, (f, n) in enumerate(zip(files, names))]


def test_two_networks_are_compared(world, tmp_path):
    """The numbers of the CSV file from the pixels of the files and both networks."""
    told = predictions(world, 3)
    with open(tmp_path / "told.csv", "w", newline="") as file:
        csv.writer(file).writerows([("name", "class", "probability"), *((*t, 1) for t in told)])
    settings = settings_of(
        world,
        tmp_path / "out",
        other=str(world / "network2.safetensors"),
        predictions=str(tmp_path / "told.csv"),
    )
    check_saliency(settings)
    line = saliency_sheets.draw_saliency(settings)
    rows = lines_of(tmp_path / "out.csv")
    assert [(row["file"], row["told"]) for row in rows] == told
    views = normalise(np.stack([view_of(row["file"]) for row in rows]))
    maps = [
        saliency(feature_maps(open_resnet(world / f"network{i}.safetensors").model)(views))
        for i in (1, 2)
    ]
    assert maps[0].shape[1:] == (3, 3)
    expected = np.minimum(*maps).sum((1, 2))
    assert np.ptp(expected) > 0.005  # images differ by more than the tolerance
    found = [float(row["similarity"]) for row in rows]
    np.testing.assert_allclose(found, expected, atol=2e-5)  # six digits; float32 in two graphs
    random = np.minimum(random_maps(maps[1].shape, 0), maps[1]).sum((1, 2))
    np.testing.assert_allclose([float(row["random"]) for row in rows], random, atol=2e-5)
    assert f"similarity {expected.mean():.3f}, with random maps {random.mean():.3f}" in line
    for name, width in (("out", 1000), ("out_least", 1000), ("out_similarity", 1300)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG" and picture.width >= width


def view_of(file: str) -> np.ndarray:
    """The central square of the short side, as the package cuts and resizes it."""
    return central_view(tf.io.read_file(file), fraction=1.0, size=SIZE).numpy()


@pytest.fixture
def averages(monkeypatch):
    """Averages of 8 x 8 pixels in place of the maps of a network, which takes seconds to trace."""
    pooling = keras.Sequential([keras.layers.AveragePooling2D(8)])
    monkeypatch.setattr(saliency_sheets, "feature_maps", lambda model: pooling)


def test_one_network(world, tmp_path, averages):
    line = saliency_sheets.draw_saliency(settings_of(world, tmp_path / "one", images=5))
    assert line == f"Saliency maps of network1.safetensors, 3 images: {tmp_path / 'one.png'}"
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_colours_go_from_blue_to_red():
    view, spread = np.full([112, 112, 3], 100, np.uint8), np.zeros([4, 4])
    spread[1, 2] = 1
    drawn = saliency_sheets.overlay(view, spread).astype(int)
    assert drawn[14 * 3, 14 * 5].argmax() == 0 and drawn[100, 10].argmax() == 2
    flat = saliency_sheets.overlay(view, np.ones([4, 4]))
    assert (flat == flat[0, 0]).all()


@pytest.mark.slow
def test_exports_and_classifiers_are_opened_too(world, tmp_path):
    network = open_resnet(world / "network1.safetensors").model
    export_backbone(network, tmp_path / "run" / "backbone", trained_size=SIZE, eval_crop=0.5)
    opened = open_resnet(tmp_path / "run")
    assert (opened.image_size, opened.eval_crop, opened.name) == (SIZE, 0.5, "run")
    exported = open_exported(tmp_path / "run")
    classifier = LinearClassifier(exported.network(), np.zeros([16, 2]), np.zeros(2))
    save_classifier(
        classifier,
        tmp_path / "classifier",
        exported=exported,
        class_names=("a", "b"),
        image_size=16,
        eval_crop=0.75,
        figures={},
    )
    of_classifier = open_resnet(tmp_path / "classifier")
    assert (of_classifier.image_size, of_classifier.eval_crop) == (16, 0.75)
    for found in (opened, of_classifier):
        for one, other in zip(found.model.get_weights(), network.get_weights()):
            np.testing.assert_array_equal(one, other)


def test_wrong_input_gets_one_sentence(world, tmp_path, averages):
    settings = settings_of(world, tmp_path / "x", other=str(world / "network2.safetensors"))
    alone = dataclasses.replace(settings, other="", predictions="p.csv")
    with pytest.raises(ValueError, match="expected --predictions with --other"):
        check_saliency(alone)
    with pytest.raises(ValueError, match="expected the beginning of file names in a folder"):
        check_saliency(dataclasses.replace(settings, output=str(tmp_path / "none" / "x")))
    with pytest.raises(ValueError, match=r"expected saliency maps of one size .*, got 1 x 1 from"):
        saliency_sheets.draw_saliency(dataclasses.replace(settings, image_size=8))
    with pytest.raises(ValueError, match="expected a file of weights or the folder of an export"):
        saliency_sheets.draw_saliency(dataclasses.replace(settings, other=str(tmp_path / "none")))
    source = open_folder(str(world / "images" / "val"))
    ids = np.arange(len(source))
    (tmp_path / "p.csv").write_text("name,class\nother.jpg,class0\n")
    with pytest.raises(
        ValueError, match=r"expected a prediction in '.*p.csv' and a class .*, got none for"
    ):
        saliency_sheets._read_predictions(str(tmp_path / "p.csv"), source, ids)
    (tmp_path / "q.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"expected a CSV file of pic_tf.predict .*\(KeyError\)"):
        saliency_sheets._read_predictions(str(tmp_path / "q.csv"), source, ids)
