"""Whole runs on images of other channels or bits than RGB of 8."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.decode.bands import encode_bands
from pic_tf.data.normalisation import Normalisation
from pic_tf.evals import protocols
from pic_tf.evals.predictions import PredictionSettings, predict
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.feature_files import compute
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.feature_files.table import open_features
from pic_tf.files import saved_models
from pic_tf.runs import checkpoint_files, open_data
from pic_tf.runs.state import restore_backbone
from pic_tf.settings import flag_files, networks
from tests.short_runs import SMALL, assert_same_run, run, signals_after

pytestmark = pytest.mark.usefixtures("shallow_networks")
SIDE = 8


def write_arrays(path, channels, kind, count=64):
    """FILE.npz of two classes, one brighter, with a part held out; gives the training images."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    level = np.linspace(0.02, 0.06, channels) * (1 + labels[:, None, None, None])
    images = level * rng.uniform(0.5, 1.5, [count, SIDE, SIDE, channels])
    images = (images * np.iinfo(kind).max).astype(kind)
    held_out = count // 4
    np.savez(
        path,
        train_images=images[held_out:],
        train_labels=labels[held_out:],
        val_images=images[:held_out],
        val_labels=labels[:held_out],
    )
    return images[held_out:]


def settings_for(dataset, output, **changes):
    common = {"dataset": str(dataset), "output_dir": str(output), "batch_size": 16, "epochs": 2}
    return dataclasses.replace(SMALL, **common, num_negatives=16, jitter=None, **changes)


def test_five_channels_of_sixteen_bits_from_arrays_to_features(tmp_path, monkeypatch):
    """Mean and deviation are NumPy's; run, export, card, resuming, evaluation and features have
    them alike.
    """
    images = write_arrays(tmp_path / "a.npz", 5, np.uint16)
    asked = settings_for(tmp_path / "a.npz", tmp_path / "run", channels=5, bit_depth=16)
    result = run(asked)
    flags = flag_files.from_flagfile(str(tmp_path / "run" / "flags.txt"))
    unit = images.reshape(-1, 5) / 65535
    exact = Normalisation(unit.mean(0), unit.std(0))
    for found, expected in zip(flags.normalisation, exact):
        np.testing.assert_allclose(found, expected, rtol=5e-6)  # six digits
    assert flags.jitter == (0.8, 0.8, 0.0, 0.0) and flags.grayscale_probability == 0
    card = json.loads((result.export / "model_card.json").read_text())
    assert (card["channels"], card["bit_depth"]) == (5, 16)
    assert card["preprocessing"]["mean"] == pytest.approx(list(flags.channel_mean))
    assert card["preprocessing"]["stddev"] == pytest.approx(list(flags.channel_stddev))

    def measured_again(*_):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:  # the run goes on with the figures that it began with
        patch.setattr(open_data, "measure_normalisation", measured_again)
        resumed, _ = open_data.open_data(asked)
    assert resumed == flags

    backbone = networks.plain_backbone(flags)
    assert backbone.input_shape == (None, None, None, 5)
    path, _ = checkpoint_files.newest(tmp_path / "run" / "checkpoints")
    restore_backbone(path, backbone)
    normalised = (images / 65535 - flags.channel_mean) / flags.channel_stddev
    expected = backbone(normalised.astype(np.float32)).numpy()
    network = saved_models.load(result.export)
    assert set(network.signatures) == {"serving_default", "training"}
    unit = tf.constant(images / 65535, tf.float32)
    got = network.signatures["serving_default"](images=unit)["features"]
    # float32 roundings through a few layers
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    compute.embed(EmbedSettings(model=str(tmp_path / "run"), output=str(tmp_path / "f.npy")))
    np.testing.assert_allclose(
        open_features(str(tmp_path / "f.npy")).of_part("train"), expected, rtol=1e-4, atol=1e-5
    )
    asked = EvaluationSettings(model=str(tmp_path / "run"), knn_k=5, seed=1)
    report, _ = protocols.run(asked)
    pixels, _ = protocols.run(
        dataclasses.replace(
            asked, model="pixels", dataset=str(tmp_path / "a.npz"), output_dir=str(tmp_path / "p")
        )
    )
    assert report.images == pixels.images == 48
    assert pixels.top1 == 1.0  # one class is twice as bright


def write_folder(root, count=32):
    """16-bit gray PNGs of two classes, in train and val, of several sizes."""
    rng = np.random.default_rng(1)
    for i in range(count):
        path = root / ("val" if i < 8 else "train") / f"class{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 2000, [10 + i % 3, 9 + i % 5, 1]) + 1500 * (i % 2)
        path.write_bytes(encode_bands(levels.astype(np.uint16)))
    return root


@pytest.mark.slow
def test_a_folder_of_gray_pngs_of_sixteen_bits(tmp_path, monkeypatch):
    """An interrupted run is the uninterrupted one, bit for bit; the export reads files itself; a
    network is fine-tuned, and classifies.
    """
    folder = write_folder(tmp_path / "images")
    of_run = {"channels": 1, "bit_depth": 16, "knn_every": 1, "checkpoint_every": 1}
    whole = settings_for(folder, tmp_path / "whole", **of_run)
    whole = dataclasses.replace(whole, batch_size=8, num_negatives=8)
    assert run(whole).finished
    cut = dataclasses.replace(whole, output_dir=str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        signals_after(patch, 4)
        assert not run(cut).finished
    assert run(cut).finished
    assert_same_run(cut.output_dir, whole.output_dir)
    compute.embed(EmbedSettings(model=whole.output_dir, output=str(tmp_path / "f.npy")))
    file = open_features(str(tmp_path / "f.npy"))
    files = sorted((folder / "train").glob("*/*.png"))
    network = saved_models.load(tmp_path / "whole" / "backbone")
    encoded = tf.constant([*(path.read_bytes() for path in files), b"nothing"])
    got = network.signatures["encoded"](encoded=encoded)
    assert got["decoded"].numpy().tolist() == [True] * len(files) + [False]
    # other sums of the same float32 numbers; a level of 65535 may be rounded otherwise
    np.testing.assert_allclose(got["features"][:-1], file.of_part("train"), rtol=1e-3, atol=1e-4)
    asked = EvaluationSettings(model=whole.output_dir, protocol="finetune", epochs=2, batch_size=8)
    report, output = protocols.run(asked)
    assert report.images == 24
    [classifier] = pathlib.Path(output).glob("finetune*_classifier")
    told = str(tmp_path / "told.csv")
    line = predict(PredictionSettings(str(classifier), str(folder / "val"), told))
    assert line.startswith("8 images with a class")
