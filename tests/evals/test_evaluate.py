"""Every protocol from the command's settings to its files, on a small folder of classes and an
untrained network.
"""

import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pic_tf.data.sources.array import ArraySource
from pic_tf.evals.protocols import open_labelled
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.models.resnet import resnet
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_model import export_backbone
from tests.evals.evaluation import COLOURS, COUNT, SIZE, network, pixels_of, run


def features_of(model, pixels):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    return serve(images=tf.constant(pixels, tf.float32))["features"].numpy().astype(np.float64)


def kinds_of(folder, words):
    """Endings of the files whose names are these words and a hash."""
    return sorted(path.suffix for path in folder.iterdir() if path.stem[:-9] == words)


def voted(bank, labels, queries, k, temperature):
    """int [q]: the class with the largest sum of exp(cosine / T) among the k nearest."""
    unit_bank, unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    predictions = []
    for cosines in unit @ unit_bank.T:
        votes = dict.fromkeys(range(3), 0.0)
        for j in np.argsort(-cosines)[:k]:
            votes[int(labels[j])] += math.exp(cosines[j] / temperature)
        predictions.append(max(votes, key=votes.get))
    return np.array(predictions)


def confusion_of(predictions, labels):
    confusion = np.zeros([3, 3], int)
    for i, j in zip(labels, predictions):
        confusion[i, j] += 1
    return confusion


def test_knn_is_a_vote_in_float64(folder, model, tmp_path):
    found, written = run(folder, model, tmp_path, knn_k=7, knn_temperature=0.05)
    (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
    expected = voted(features_of(model, images), labels, features_of(model, held_out), 7, 0.05)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert 0.5 < found.top1 == written["top1"] == np.mean(expected == truth) < 1
    assert found.line() == f"| kNN, k 7 | tiny | colours | 60 | 21 | {found.top1:.4f} |  |"
    assert written["flags"]["knn_k"] == 7 and written["flags"]["image_size"] == SIZE
    (file,) = tmp_path.glob("knn_colours_*.png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"


def test_knn_of_raw_pixels(folder, tmp_path):
    found, written = run(folder, "pixels", tmp_path, knn_k=5, image_size=SIZE)
    (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
    bank, queries = (
        ((x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).reshape(len(x), -1)
        for x in (images, held_out)
    )
    expected = voted(bank, labels, queries, 5, 0.07)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert written["backbone"] == "raw pixels"
    assert kinds_of(tmp_path, "knn_pixels_colours") == [".json", ".png"]


def test_lbfgs_is_scikit_learns_regression(folder, arrays, model, tmp_path):
    with threadpool_limits(1):  # more of them wait for each other
        found, written = run(arrays, model, tmp_path, protocol="linear", solver="lbfgs")
        (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
        bank, queries = features_of(model, images), features_of(model, held_out)
        mean, std = (
            bank.mean(0),
            np.where(bank.std(0) > 1e-9, bank.std(0), 1),
        )  # a channel may be 0 throughout
        direct = LogisticRegression(C=written["strength"], max_iter=1000).fit(
            (bank - mean) / std, labels
        )
    expected = direct.predict((queries - mean) / std)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert 0.5 < found.top1 == written["top1"] and kinds_of(tmp_path, "linear_lbfgs_arrays")


def test_linear_leaves_the_backbone_alone_and_counts_the_last_epoch(arrays, model, tmp_path):
    before = open_exported(model).fingerprint
    found, written = run(
        arrays, model, tmp_path, protocol="linear", epochs=5, learning_rate=20.0, eval_every=2
    )
    assert open_exported(model).fingerprint == before
    assert list(written["top1_by_epoch"]) == ["2", "4", "5"]
    assert written["top1"] == written["top1_by_epoch"]["5"] == found.top1
    assert written["best_top1"] == max(written["top1_by_epoch"].values())
    assert written["top1_by_epoch"][str(written["best_epoch"])] == written["best_top1"]
    assert kinds_of(tmp_path, "linear_sgd_arrays") == [".json", ".png"]  # and no state


@pytest.mark.parametrize(
    "make",
    [
        network,
        pytest.param(lambda: resnet(18, "small", 8), marks=pytest.mark.slow),
    ],  # half a minute
    ids=["tiny", "resnet18"],
)
def test_fine_tuning_learns(tmp_path, make):
    """The class is the colour of four pixels in the middle, of which a new network tells little:
    by chance a third.
    """
    keras.utils.set_random_seed(0)
    export_backbone(make(), tmp_path / "backbone", trained_size=8)
    rng, labels = np.random.default_rng(0), np.arange(160) % 3
    images = rng.integers(0, 60, (160, 8, 8, 3), np.uint8)
    images[np.arange(160), 4:6, 4:6, labels] += 150
    sources = tuple(
        ArraySource(images[x], labels[x], tuple(COLOURS)) for x in (slice(120), slice(120, None))
    )
    found, written = run(
        sources, tmp_path / "backbone", tmp_path / "out", protocol="finetune", epochs=20, learning_rate=1.0,
        batch_size=30, crop_scale=(1.0, 1.0), flip_probability=0.0,
    )  # fmt: skip
    assert written["top1_by_epoch"]["1"] < 0.6 and found.top1 > 0.9
    name = open_exported(tmp_path / "backbone").name
    assert found.line().startswith(f"| fine-tuned, 20 epochs | {name} | arrays | 120 | 40 | ")
    assert kinds_of(tmp_path / "out", "finetune_arrays") == [".json", ".png"]


def test_label_fraction_takes_that_share_of_every_class(arrays, model, tmp_path):
    found, written = run(arrays, model, tmp_path, label_fraction=0.15, knn_k=3)
    assert found.images == written["labelled_images"] == 3 * 3
    assert found.line().startswith("| kNN, k 3, 0.15 of the labels | tiny | arrays | 9 | 21 |")
    assert kinds_of(tmp_path, "knn_arrays_15pct")


@pytest.mark.parametrize(
    "changes, title",
    [
        ({"knn_k": 1000}, "kNN, k 59"),
        ({"protocol": "linear", "epochs": 2}, "linear, 2 epochs"),
    ],
    ids=["knn", "linear"],
)
def test_images_and_neighbours_are_counted_as_they_are_used(
    folder, model, tmp_path, changes, title
):
    """As retrieval counts them: without broken ones, and no more neighbours than images."""
    shutil.copytree(folder, tmp_path / "images")
    next((tmp_path / "images" / "train" / "red").iterdir()).write_bytes(b"no image")
    changes = changes | {"max_broken": 0.1}
    found, written = run(tmp_path / "images", model, tmp_path / "out", **changes)
    assert found.images == written["labelled_images"] == 59
    assert found.line().startswith(f"| {title} | tiny | images | 59 | 21 |")


def test_label_ids_choose_the_images(folder, model, tmp_path):
    (tmp_path / "two.txt").write_text("train/blue/blue00.png\nred19.png\n")
    found, _ = run(folder, model, tmp_path / "out", label_ids=str(tmp_path / "two.txt"), knn_k=1)
    (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
    bank = features_of(model, images)[[0, 59]]
    expected = voted(bank, labels[[0, 59]], features_of(model, held_out), 1, 0.07)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert found.images == 2 and kinds_of(tmp_path / "out", "knn_colours_two")


def test_broken_images_count_for_nothing(folder, model, tmp_path):
    """A quarter of a class in the bank, all of which votes, and one to classify, cut off."""
    data = shutil.copytree(folder, tmp_path / "data")
    gone = [data / "train" / "blue" / f"blue{i:02d}.png" for i in range(5)] + [
        data / "val" / "red" / "red01.png"
    ]
    for file in gone:
        file.write_bytes(file.read_bytes()[:100])
    found, written = run(
        data, model, tmp_path / "broken", knn_k=60, knn_temperature=1.0, max_broken=0.1
    )
    assert written["held_out_images"] == 20
    for file in gone:
        file.unlink()
    (images, labels), (held_out, truth) = (pixels_of(data, part) for part in COUNT)
    expected = voted(features_of(model, images), labels, features_of(model, held_out), 60, 1.0)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))


@pytest.mark.parametrize(
    "dataset, sentence",
    [
        (
            "train/red",
            "expected labelled images for --protocol=linear, got none in '.*': put them into one "
            "folder a c",
        ),
        (
            "train",
            "expected labelled held-out images, got none for '.*': put train and val inside it, or "
            "name --eval_",
        ),
        (
            "missing",
            "expected a folder of images at '.*missing', got nothing there: check the path",
        ),
    ],
)
def test_images_without_what_a_protocol_needs(folder, dataset, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_labelled(EvaluationSettings(protocol="linear", dataset=str(folder / dataset)))


def test_images_to_learn_from_are_not_judged(folder):
    """Each would be its own nearest neighbour."""
    train = str(folder / "train")
    sentence = r"^expected held-out images .*, got 60 in both, such as '.*train/blue/blue00.png'"
    with pytest.raises(ValueError, match=sentence):
        open_labelled(EvaluationSettings(dataset=train, eval_dataset=train))


def test_a_size_that_the_export_does_not_take_is_one_sentence(arrays, tmp_path):
    inputs = keras.Input([8, 8, 3])
    export_backbone(keras.Model(inputs, keras.layers.Flatten()(inputs)), tmp_path / "backbone", 8)
    with pytest.raises(ValueError, match=r"^expected .*image_size[^\n]*$"):
        run(arrays, tmp_path / "backbone", tmp_path / "out", image_size=16)
