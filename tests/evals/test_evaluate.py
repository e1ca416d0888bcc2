"""Every protocol from the command's settings to its files, on a small folder of classes and an untrained network."""

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pic_tf.data.sources.array import ArraySource
from pic_tf.evals.each_epoch import EachEpoch
from pic_tf.evals.protocols import evaluate, open_labelled
from pic_tf.evals.settings import Settings, resolve
from pic_tf.evals.supervised import Training, train_classifier
from pic_tf.models.resnet import resnet
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_model import export_backbone
from tests.processes import commands_that_fork, with_replicas

ONE = tf.distribute.get_strategy()  # one replica
SIZE = 16  # pixels
COLOURS = {"blue": (60, 60, 150), "green": (60, 150, 60), "red": (150, 60, 60)}
COUNT = {"train": 20, "val": 7}  # images a class


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/CLASS and val/CLASS: noise around a colour that a third of the images of another class may have too."""
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(0)
    for part, count in COUNT.items():
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                mean = np.array(colour) + rng.normal(0, 40, 3)
                pixels = np.clip(mean + rng.normal(0, 25, [SIZE, SIZE, 3]), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{name}{i:02d}.png")
    return root


def network() -> keras.Model:
    """Two convolutions with batch normalisation: a ResNet-18 takes seconds to load, in each test."""
    inputs = x = keras.Input([None, None, 3])
    for name, channels, stride in (("stem", 8, 2), ("stage1_block1", 16, 1)):
        x = keras.layers.Conv2D(channels, 3, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="tiny")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("run") / "backbone"
    export_backbone(network(), path, trained_size=SIZE)
    return path


@pytest.fixture(scope="module")
def arrays(folder):
    """The same images in memory, which are sooner read: (training source, held-out source)."""
    return tuple(
        ArraySource(np.rint(255 * pixels).astype(np.uint8), labels, tuple(sorted(COLOURS)), part)
        for part, (pixels, labels) in ((part, pixels_of(folder, part)) for part in COUNT)
    )


def run(data, model, output, **flags):
    """The report of an evaluation of a folder or of two sources, and its JSON."""
    settings = Settings(
        model=str(model), dataset="arrays" if isinstance(data, tuple) else str(data), output_dir=str(output), **flags
    )
    exported = None if model == "pixels" else open_exported(model)
    settings = resolve(settings, exported)
    keras.utils.set_random_seed(settings.seed)
    sources = data if isinstance(data, tuple) else open_labelled(settings)
    found = evaluate(settings, exported, *sources, ONE)
    (file,) = pathlib.Path(output).glob("*.json")
    return found, json.loads(file.read_text())


def pixels_of(folder, part):
    """(float64 [n, 16, 16, 3] in [0, 1], labels), the classes and the files in the order of their names."""
    files = sorted((folder / part).rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    return pixels, np.array([sorted(COLOURS).index(file.parent.name) for file in files])


def features_of(model, pixels):
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]
    return serve(images=tf.constant(pixels, tf.float32))["features"].numpy().astype(np.float64)


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
    assert found.line() == f"| kNN, k 7 | tiny | 60 | 21 | {found.top1:.4f} |  |"
    assert written["flags"]["knn_k"] == 7 and written["flags"]["image_size"] == SIZE
    with Image.open(tmp_path / "knn.png") as picture:
        assert picture.format == "PNG"


def test_knn_of_raw_pixels(folder, tmp_path):
    found, written = run(folder, "pixels", tmp_path, knn_k=5, image_size=SIZE)
    (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
    bank, queries = (
        ((x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).reshape(len(x), -1) for x in (images, held_out)
    )
    expected = voted(bank, labels, queries, 5, 0.07)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert written["backbone"] == "raw pixels" and sorted(path.name for path in tmp_path.glob("knn*")) == [
        "knn_pixels.json",
        "knn_pixels.png",
    ]


def test_lbfgs_is_scikit_learns_regression(folder, arrays, model, tmp_path):
    with threadpool_limits(1):  # more of them wait for each other
        found, written = run(arrays, model, tmp_path, protocol="linear", solver="lbfgs")
        (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
        bank, queries = features_of(model, images), features_of(model, held_out)
        mean, std = bank.mean(0), np.where(bank.std(0) > 1e-9, bank.std(0), 1)  # a channel may be 0 throughout
        direct = LogisticRegression(C=written["strength"], max_iter=1000).fit((bank - mean) / std, labels)
    expected = direct.predict((queries - mean) / std)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert 0.5 < found.top1 == written["top1"] and (tmp_path / "linear_lbfgs.png").exists()


def test_linear_leaves_the_backbone_alone_and_counts_the_last_epoch(arrays, model, tmp_path):
    before = open_exported(model).fingerprint
    found, written = run(arrays, model, tmp_path, protocol="linear", epochs=5, learning_rate=20.0, eval_every=2)
    assert open_exported(model).fingerprint == before
    assert list(written["top1_by_epoch"]) == ["2", "4", "5"]
    assert written["top1"] == written["top1_by_epoch"]["5"] == found.top1
    assert written["best_top1"] == max(written["top1_by_epoch"].values())
    assert written["top1_by_epoch"][str(written["best_epoch"])] == written["best_top1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linear_sgd.json", "linear_sgd.png"]  # and no state


@pytest.mark.parametrize(
    "make",
    [network, pytest.param(lambda: resnet(18, "small", 8), marks=pytest.mark.slow)],  # half a minute
    ids=["tiny", "resnet18"],
)
def test_fine_tuning_learns(tmp_path, make):
    """The class is the colour of four pixels in the middle, of which a new network tells little: by chance a third."""
    keras.utils.set_random_seed(0)
    export_backbone(make(), tmp_path / "backbone", trained_size=8)
    rng, labels = np.random.default_rng(0), np.arange(160) % 3
    images = rng.integers(0, 60, (160, 8, 8, 3), np.uint8)
    images[np.arange(160), 4:6, 4:6, labels] += 150
    sources = tuple(ArraySource(images[x], labels[x], tuple(COLOURS)) for x in (slice(120), slice(120, None)))
    found, written = run(
        sources, tmp_path / "backbone", tmp_path / "out", protocol="finetune", epochs=20, learning_rate=1.0,
        batch_size=30, crop_scale=(1.0, 1.0), flip_probability=0.0,
    )  # fmt: skip
    assert written["top1_by_epoch"]["1"] < 0.6 and found.top1 > 0.9
    name = open_exported(tmp_path / "backbone").name
    assert found.line().startswith(f"| fine-tuned, 20 epochs | {name} | 120 | 40 | ")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["finetune.json", "finetune.png"]


def test_label_fraction_takes_that_share_of_every_class(arrays, model, tmp_path):
    found, written = run(arrays, model, tmp_path, label_fraction=0.15, knn_k=3)
    assert found.images == written["labelled_images"] == 3 * 3
    assert found.line().startswith("| kNN, k 3, 0.15 of the labels | tiny | 9 | 21 |")
    assert (tmp_path / "knn_15pct.json").exists()


def test_label_ids_choose_the_images(folder, model, tmp_path):
    (tmp_path / "two.txt").write_text("train/blue/blue00.png\nred19.png\n")
    found, _ = run(folder, model, tmp_path / "out", label_ids=str(tmp_path / "two.txt"), knn_k=1)
    (images, labels), (held_out, truth) = (pixels_of(folder, part) for part in COUNT)
    bank = features_of(model, images)[[0, 59]]
    expected = voted(bank, labels[[0, 59]], features_of(model, held_out), 1, 0.07)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))
    assert found.images == 2 and (tmp_path / "out" / "knn_two.json").exists()


def test_broken_images_count_for_nothing(folder, model, tmp_path):
    """A quarter of a class in the bank, all of which votes, and one to classify, cut off."""
    data = shutil.copytree(folder, tmp_path / "data")
    gone = [data / "train" / "blue" / f"blue{i:02d}.png" for i in range(5)] + [data / "val" / "red" / "red01.png"]
    for file in gone:
        file.write_bytes(file.read_bytes()[:100])
    found, written = run(data, model, tmp_path / "broken", knn_k=60, knn_temperature=1.0, max_broken=0.1)
    assert written["held_out_images"] == 20
    for file in gone:
        file.unlink()
    (images, labels), (held_out, truth) = (pixels_of(data, part) for part in COUNT)
    expected = voted(features_of(model, images), labels, features_of(model, held_out), 60, 1.0)
    np.testing.assert_array_equal(found.confusion, confusion_of(expected, truth))


class Stop(Exception):
    """Stands for whatever ends a process."""


def test_interrupted_and_resumed_equals_uninterrupted(arrays, model, tmp_path, monkeypatch):
    """Bit for bit: predictions, accuracy by epoch and every weight after each epoch."""
    flags = {"protocol": "finetune", "epochs": 4, "batch_size": 24, "learning_rate": 0.3, "warmup_epochs": 1.0}
    flags |= {"weight_decay": 1e-3, "layer_decay": 0.7, "backbone_rate": 0.5, "eval_every": 2}
    ends, on_epoch_end = [], EachEpoch.on_epoch_end

    def watched(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        ends.append((self.done, [v.numpy() for v in self.model.state], self.predictions))
        if len(ends) in (4 + 1, 4 + 3):  # of the second run, after its first and third epoch
            raise Stop

    monkeypatch.setattr(EachEpoch, "on_epoch_end", watched)
    tf.config.experimental.enable_op_determinism()
    _, expected = run(arrays, model, tmp_path / "at once", **flags)
    for _ in range(2):
        with pytest.raises(Stop):
            run(arrays, model, tmp_path / "in parts", **flags)
    _, written = run(arrays, model, tmp_path / "in parts", **flags)
    assert [done for done, *_ in ends] == [1, 2, 3, 4, 1, 2, 3, 4]
    for (_, one, _), (_, other, _) in zip(ends[:4], ends[4:]):
        assert len(one) == 12  # 10 of the network, 2 of the classifier
        for before, after in zip(one, other):
            np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(ends[3][2], ends[7][2])
    assert not any(np.array_equal(a, b) for a, b in zip(ends[0][1], ends[3][1]))  # all of them move
    for of_run in (expected, written):
        del of_run["flags"]["output_dir"]
    assert written == expected and list(written["top1_by_epoch"]) == ["2", "4"]
    assert not list((tmp_path / "in parts").glob("*.state*"))


@pytest.mark.parametrize(
    "content", [b"", b"no archive", "cut off"], ids=["an empty file", "no archive", "a file that is cut off"]
)
def test_a_state_that_cannot_be_read(arrays, model, tmp_path, content):
    flags = {"protocol": "linear", "epochs": 2, "batch_size": 60, "learning_rate": 1.0, "eval_every": 2}
    state = tmp_path / "linear_sgd.state.npz"
    if content == "cut off":
        np.savez(state, settings="{}", done=1)
        content = state.read_bytes()[:-50]
    state.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected the state of an interrupted evaluation in '.*', got a file that"):
        run(arrays, model, tmp_path, **flags)
    assert state.read_bytes() == content


def test_a_state_of_other_settings_is_no_beginning(arrays, model, tmp_path):
    state = tmp_path / "linear_sgd.state.npz"
    np.savez(state, settings="{}", done=1)
    _, written = run(arrays, model, tmp_path, protocol="linear", epochs=2, batch_size=60, learning_rate=1.0)
    assert list(written["top1_by_epoch"]) == ["1", "2"] and not state.exists()


def trained(strategy, model, output, fine_tune):
    """(predictions, accuracies, trained weights, loss) of a classifier.

    Two images in turn are the same, so that each of two replicas has all.
    """
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(12) % 3, 2)
    images = rng.integers(0, 256, (12, SIZE, SIZE, 3), np.uint8).repeat(2, axis=0)
    images[np.arange(24), :, :, classes] //= 2
    source, held_out = (
        ArraySource(images[part], classes[part], ("a", "b", "c")) for part in (slice(24), slice(0, 24, 3))
    )
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    given = {field.name: defaults.get(field.name) for field in dataclasses.fields(Training)}
    given |= {"epochs": 5, "batch_size": 24, "learning_rate": 1.0, "crop_scale": (1.0, 1.0), "flip_probability": 0.0}
    given |= {"image_size": SIZE, "eval_crop": 1.0, "weight_decay": 0.01}
    given["fine_tune"] = fine_tune
    kept, on_epoch_end = [], EachEpoch.on_epoch_end

    def keep(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        kept[:] = [v.numpy() for v in self.model.trained], float(logs["loss"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EachEpoch, "on_epoch_end", keep)
        predictions, _, accuracies = train_classifier(
            open_exported(model), source, held_out, 3, Training(**given), strategy, pathlib.Path(output)
        )
    return predictions, accuracies, *kept


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune", [True, False])
def test_two_replicas_equal_one(model, tmp_path, fine_tune):
    """All images in every step, and the same ones in both replicas, so that batch statistics are the same too."""
    predictions, accuracies, weights, loss = trained(ONE, str(model), tmp_path / "1.npz", fine_tune)
    found = with_replicas(2, trained, str(model), str(tmp_path / "2.npz"), fine_tune)
    assert len(weights) == len(found[2]) == (8 if fine_tune else 2) and list(accuracies) == [1, 2, 3, 4, 5]
    # The same sums in another order, in float32, over five steps of momentum.
    for before, after in zip(weights, found[2]):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[3], loss, rtol=1e-4)
    np.testing.assert_array_equal(found[0][:, 0], predictions[:, 0])
    assert found[1] == accuracies


@pytest.fixture(scope="module")
def forked():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with commands_that_fork() as command:
        yield lambda *arguments: command("pic_tf.evaluate", list(arguments), environment, 120)


def test_command(folder, model, tmp_path, forked):
    """The row of the table on standard output, and nothing else there; results beside the SavedModel."""
    beside = shutil.copytree(model, tmp_path / "run" / "backbone").parent
    ended = forked("--protocol=knn", f"--model={beside}", f"--dataset={folder}", "--knn_k=7")
    assert ended.code == 0, ended.stderr
    top1 = json.loads((beside / "evaluation" / "knn.json").read_text())["top1"]
    assert ended.stdout.splitlines()[2:] == [f"| kNN, k 7 | tiny | 60 | 21 | {top1:.4f} |  |"]
    assert ended.stdout.startswith("| protocol | backbone |")
    assert sorted(p.name for p in (beside / "evaluation").iterdir()) == ["features", "knn.json", "knn.png"]
    assert f"results in {beside / 'evaluation'}" in ended.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            "--model=MODEL --dataset=FOLDER/train/red",
            "error: expected labelled images for --protocol=knn, got none in .*: put them into one folder a class",
        ),
        ("--model=MODEL --dataset=FOLDER/train", "error: expected labelled held-out images, got none for"),
        ("--model=FOLDER --dataset=FOLDER", "error: expected an exported backbone at '.*', got no saved_model.pb"),
        ("--model=pixels --protocol=linear", "error: expected --protocol=knn, or linear with --solver=lbfgs, for raw"),
        ("--model=MODEL --crop_scale=a,b", "error: expected numbers in --crop_scale, got 'a,b'"),
        ("--model=MODEL --replicas=2", "error: expected --replicas with --strategy=mirrored only, got it with none"),
        ("--model=MODEL knn", "error: expected flags only, got 'knn': write --flag=value"),
        ("--protocol=nonsense", "FATAL Flags parsing error: flag --protocol=nonsense: value should be one of"),
        ("--nonsense=1", "FATAL Flags parsing error: Unknown command line flag 'nonsense'"),
    ],
)
def test_command_ends_with_one_sentence(folder, model, tmp_path, forked, arguments, sentence):
    filled = arguments.replace("MODEL", str(model)).replace("FOLDER", str(folder)).split()
    ended = forked(*filled, f"--output_dir={tmp_path / 'out'}")
    assert ended.code == 1 and not ended.stdout
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("Pass --help")]  # absl's second line
    assert len(lines) == 1 and re.match(sentence, lines[0]), ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_process_ends_with_one_sentence(tmp_path):
    arguments = ["--model=pixels", "--protocol=finetune", f"--output_dir={tmp_path / 'out'}"]
    ended = subprocess.run([sys.executable, "-m", "pic_tf.evaluate", *arguments], capture_output=True, text=True)
    assert ended.returncode == 1 and not ended.stdout and not (tmp_path / "out").exists()
    assert re.fullmatch("error: expected --protocol=knn, or linear .*, got finetune with sgd: .*\n", ended.stderr)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ({"protocol": "nonsense"}, "expected --protocol to be one of knn, linear, finetune, got 'nonsense'"),
        ({"protocol": "linear", "solver": "adam"}, "expected --solver to be one of sgd, lbfgs, got 'adam'"),
        ({"epochs": 0}, "expected --epochs >= 1, got 0"),
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
        ({"image_size": 0}, "expected --image_size >= 1, got 0"),
        ({"eval_crop": 0.0}, "expected 0 < --eval_crop <= 1, got 0.0"),
        ({"seed": -1}, "expected --seed >= 0, got -1"),
        ({"label_fraction": 0.5, "label_ids": "names.txt"}, "expected --label_ids or --label_fraction, got both"),
        ({"protocol": "linear", "model": "pixels"}, r"expected --protocol=knn, .* got linear with sgd: there is no n"),
    ],
)
def test_settings_that_cannot_be(model, flags, sentence):
    settings = Settings(**({"model": str(model)} | flags))
    exported = None if settings.model == "pixels" else open_exported(model)
    with pytest.raises(ValueError, match=re.compile(sentence)):
        resolve(settings, exported)


def test_image_size_has_to_be_known(tmp_path):
    inputs = keras.Input([None, None, 3])
    export_backbone(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)), tmp_path / "backbone")
    exported = open_exported(tmp_path)
    with pytest.raises(ValueError, match=r"expected --image_size, got none, and the model card of '.*' names none"):
        resolve(Settings(), exported)
    assert resolve(Settings(image_size=8), exported).image_size == 8


def test_what_none_stands_for(model):
    exported = open_exported(model)
    linear, tuned = (resolve(Settings(protocol=p), exported) for p in ("linear", "finetune"))
    assert (linear.epochs, linear.learning_rate, tuned.epochs, tuned.learning_rate) == (100, 30.0, 30, 0.05)
    assert resolve(Settings(protocol="linear", epochs=7), exported).epochs == 7
    assert linear.output_dir == str(model.parent / "evaluation")
    pixels = resolve(Settings(model="pixels"), None)
    assert (pixels.image_size, pixels.eval_crop, pixels.output_dir) == (32, 1.0, "runs/pixels")


@pytest.mark.parametrize(
    "dataset, sentence",
    [
        ("train/red", "expected labelled images for --protocol=linear, got none in '.*': put them into one folder a c"),
        ("train", "expected labelled held-out images, got none for '.*': put train and val inside it, or name --eval_"),
        ("missing", "expected a folder of images at '.*missing', got nothing there: check the path"),
    ],
)
def test_images_without_what_a_protocol_needs(folder, dataset, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_labelled(Settings(protocol="linear", dataset=str(folder / dataset)))


def test_a_size_that_the_export_does_not_take_is_one_sentence(arrays, tmp_path):
    inputs = keras.Input([8, 8, 3])
    export_backbone(keras.Model(inputs, keras.layers.Flatten()(inputs)), tmp_path / "backbone", 8)
    with pytest.raises(ValueError, match=r"^expected .*image_size[^\n]*$"):
        run(arrays, tmp_path / "backbone", tmp_path / "out", image_size=16)


def test_a_rate_that_is_too_high(arrays, model, tmp_path):
    with pytest.raises(FloatingPointError, match="expected a finite loss, got one that is not: lower --learning_rate"):
        run(arrays, model, tmp_path, protocol="linear", epochs=3, learning_rate=1e6, weight_decay=1e6, batch_size=10)
