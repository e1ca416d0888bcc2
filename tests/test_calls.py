"""One Python call does what one command does."""

import dataclasses
import importlib
import inspect
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.data.sources.array import digits
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.settings.config import Config
from pic_tf.settings.keywords import from_keywords
from pic_tf.training import loop
from tests.short_runs import SMALL, empty_exports, metrics_of

CALLS = {"pretrain": Config, "evaluate": EvaluationSettings, "embed": EmbedSettings}


@pytest.mark.usefixtures("shallow_networks")
def test_pretrain(tmp_path, capsys, monkeypatch):
    """Callbacks get the numbers of metrics.csv; a second call finds the run at its end."""
    empty_exports(monkeypatch)
    logs = []
    log = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, seen: logs.append(dict(seen)))
    changes = {"epochs": 1, "output_dir": tmp_path / "run", "knn_every": 0}
    given = {field.name: getattr(SMALL, field.name) for field in dataclasses.fields(Config)}
    run = pic_tf.pretrain(**(given | changes), callbacks=[log])
    assert run.finished and run.step == 23 and run.backbone == tmp_path / "run" / "backbone"
    assert run._repr_png_().startswith(b"\x89PNG")
    (numbers,) = metrics_of(tmp_path / "run")
    assert float(numbers["loss"]) == float(logs[0]["loss"])
    assert "done: backbone in" in capsys.readouterr().out
    assert pic_tf.pretrain(**(given | changes), callbacks=[log]).step == 23 and len(logs) == 1
    with pytest.raises(ValueError, match=r"^expected the flags of the run .*--temperature"):
        pic_tf.pretrain(**(given | changes | {"temperature": 0.3}))


class Steps:
    """Stand-in for the model, checkpoints and inputs of a run: counts epochs of 5 steps."""

    def __init__(self, stops):
        self.step, self.stops, self.stop_training, self.saved = 0, stops, False, []
        self.distribute_strategy = tf.distribute.get_strategy()

    def fit(self, _, initial_epoch, epochs, **__):
        self.step += 5 * (1 if self.stops else epochs - initial_epoch)
        self.stop_training = self.stops


def test_a_callback_ends_the_training_with_its_state_saved():
    for stops, expected in ((True, (5, False)), (False, (15, True))):
        run = Steps(stops)
        run.freeze_backbone = run.of_replica = lambda *_: None
        run.save = lambda run=run: run.saved.append(run.step)
        run.wait = lambda: None
        run.weights, run.set_weights = [], lambda _: None
        model = {"model": run, "checkpoints": run, "inputs": run, "backbone": run}
        run.backbone = run
        sizes = {"total_steps": 15, "steps_per_epoch": 5, "frozen_steps": 0}
        parts = types.SimpleNamespace(plain_backbone=run, **model, **sizes)
        result = loop._fit(parts, [], run, 0)
        assert (result.step, result.finished) == expected and run.saved == [result.step]


@pytest.mark.parametrize(
    "callback, name",
    [
        (keras.callbacks.EarlyStopping(restore_best_weights=True), "EarlyStopping.restore_best"),
        (keras.callbacks.BackupAndRestore("backup"), "BackupAndRestore"),
    ],
)
def test_callbacks_that_set_a_model_back_are_refused(callback, name):
    with pytest.raises(ValueError, match=rf"^expected callbacks that leave .*, got {name}[^\n]*$"):
        pic_tf.pretrain(output_dir="nowhere", callbacks=[callback])


def test_evaluate_and_embed(tmp_path):
    of_pixels = {"model": "pixels", "dataset": "digits", "image_size": 8}
    report = pic_tf.evaluate(**of_pixels, output_dir=tmp_path, intra_op_threads=0)
    assert 0.95 < report.top1 <= 1 and report.confusion.sum() == 297
    file = pic_tf.embed(**of_pixels, output=tmp_path / "features.npy")
    expected = ((digits("train").images / 255 - MEAN) / STDDEV).reshape(1500, -1)
    np.testing.assert_allclose(file.of_part("train"), expected, atol=1e-6)  # float32


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_described_by_its_settings(name):
    call, settings = getattr(pic_tf, name), CALLS[name]
    parameters = inspect.signature(call).parameters
    for field in dataclasses.fields(settings):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].annotation == field.type
        assert f"  {field.name}: {field.metadata['help']}" in inspect.getdoc(call)
    assert "settings" not in parameters


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"epoch": 3}, r"expected the name of a setting, got 'epoch': did you mean epochs\?"),
        ({"xyz": 3}, r"expected the name of a setting, got 'xyz': help\(\) of this function lists"),
        ({"epochs": "3"}, r"expected epochs of type int, got '3' of type str"),
        ({"epochs": True}, r"expected epochs of type int, got True of type bool"),
        ({"epochs": None}, r"expected epochs of type int, got None of type NoneType"),
        ({"tensorboard": 1}, r"expected tensorboard of type bool, got 1 of type int"),
        ({"crop_scale": (0.1, "1")}, r"expected crop_scale of type numbers, got \(0.1, '1'\)"),
    ],
)
def test_wrong_keywords_get_one_sentence(given, sentence):
    with pytest.raises(TypeError, match=f"^{sentence}[^\n]*$"):
        from_keywords(Config, "", given)


def test_keywords_come_before_a_recipe(tmp_path):
    found = from_keywords(
        Config,
        "configs/cifar10.flags",
        {
            "epochs": np.int64(3),
            "output_dir": tmp_path,
            "crop_scale": [0.5, 1],
            "num_negatives": None,
        },
    )
    assert (found.epochs, found.width, found.crop_scale) == (3, 32, (0.5, 1.0))
    assert type(found.epochs) is int and found.output_dir == str(tmp_path)
    with pytest.raises(ValueError, match=r"^expected a flag file at 'no.flags'"):
        from_keywords(Config, "no.flags", {})


@pytest.mark.parametrize("name", ["evaluate", "embed"])
def test_a_command_is_run_and_never_imported(name):
    with pytest.raises(ImportError, match=f"^expected `python -m pic_tf.{name}` or `pic_tf.{name}"):
        importlib.import_module(f"pic_tf.{name}")
    assert callable(getattr(pic_tf, name))
