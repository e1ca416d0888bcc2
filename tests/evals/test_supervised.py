"""Training of a classifier: interrupted and resumed, on several replicas, with a rate that is
too high.
"""

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.sources.array import ArraySource
from pic_tf.evals import protocols
from pic_tf.evals.evaluate_and_save import EvaluateAndSave
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.evals.supervised import Training, train_classifier
from pic_tf.serving.exported import open_exported
from tests.evals.evaluation import ONE, SIZE, run
from tests.processes import with_replicas


class Stop(Exception):
    """Stands for whatever ends a process."""


def interrupted(arrays, model, output, flags) -> pathlib.Path:
    """Stop a training after its first epoch; the file of its state."""
    before, on_epoch_end = set(output.glob("*.state.*")), EvaluateAndSave.on_epoch_end

    def stopped(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluateAndSave, "on_epoch_end", stopped)
        with pytest.raises(Stop):
            run(arrays, model, output, **flags)
    (state,) = {*output.glob("*.state.*")} - before
    return state


def test_interrupted_and_resumed_equals_uninterrupted(arrays, model, tmp_path, monkeypatch):
    """Bit for bit: predictions, accuracy by epoch and every weight after each epoch."""
    flags = {
        "protocol": "finetune",
        "epochs": 4,
        "batch_size": 24,
        "learning_rate": 0.3,
        "warmup_epochs": 1.0,
    }
    flags |= {"weight_decay": 1e-3, "layer_decay": 0.7, "backbone_rate": 0.5, "eval_every": 2}
    ends, on_epoch_end = [], EvaluateAndSave.on_epoch_end

    def watched(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        ends.append((self.done, [v.numpy() for v in self.model.state], self.predictions))
        if len(ends) in (4 + 1, 4 + 3):  # of the second run, after its first and third epoch
            raise Stop

    monkeypatch.setattr(EvaluateAndSave, "on_epoch_end", watched)
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


def test_a_state_that_cannot_be_read(arrays, model, tmp_path):
    flags = {
        "protocol": "linear",
        "epochs": 2,
        "batch_size": 60,
        "learning_rate": 1.0,
        "eval_every": 2,
    }
    state = interrupted(arrays, model, tmp_path, flags)
    cut_off = state.read_bytes()[:-50]
    for content in (b"", b"no archive", cut_off):
        state.write_bytes(content)
        with pytest.raises(
            ValueError,
            match=r"expected the state of an interrupted evaluation in '.*', got a file that",
        ):
            run(arrays, model, tmp_path, **flags)
        assert state.read_bytes() == content


def test_a_training_is_kept_until_its_classifier_is_written(arrays, model, tmp_path, capsys):
    """Beside one of other settings, which is left alone."""
    flags = {"protocol": "linear", "epochs": 3, "batch_size": 60, "learning_rate": 1.0}
    other = interrupted(arrays, model, tmp_path, flags)

    def full_disk(*_, **__):
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "save_classifier", full_disk)
        with pytest.raises(OSError, match="no space left"):
            run(arrays, model, tmp_path, **flags | {"epochs": 2})
    (state,) = {*tmp_path.glob("*.state.*")} - {other}
    assert int(np.load(state)["done"]) == 1 and int(np.load(other)["done"]) == 1
    capsys.readouterr()
    # When its accuracy is looked at changes nothing in a training.
    _, written = run(arrays, model, tmp_path, **flags, eval_every=3)
    assert "going on after epoch 1" in capsys.readouterr().err and not other.exists()
    assert list(written["top1_by_epoch"]) == ["1", "3"] and state.exists()


def trained(strategy, model, output, fine_tune):
    """(predictions, accuracies, trained weights, loss) of a classifier.

    Two images in turn are the same, so that each of two replicas has all.
    """
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(12) % 3, 2)
    images = rng.integers(0, 256, (12, SIZE, SIZE, 3), np.uint8).repeat(2, axis=0)
    images[np.arange(24), :, :, classes] //= 2
    source, held_out = (
        ArraySource(images[part], classes[part], ("a", "b", "c"))
        for part in (slice(24), slice(0, 24, 3))
    )
    defaults = {field.name: field.default for field in dataclasses.fields(EvaluationSettings)}
    given = {field.name: defaults.get(field.name) for field in dataclasses.fields(Training)}
    given |= {
        "epochs": 5,
        "batch_size": 24,
        "learning_rate": 1.0,
        "crop_scale": (1.0, 1.0),
        "flip_probability": 0.0,
    }
    given |= {"image_size": SIZE, "eval_crop": 1.0, "weight_decay": 0.01}
    given["fine_tune"] = fine_tune
    kept, on_epoch_end = [], EvaluateAndSave.on_epoch_end

    def keep(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        kept[:] = [v.numpy() for v in self.model.trained], float(logs["loss"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluateAndSave, "on_epoch_end", keep)
        predictions, _, _, accuracies, *_ = train_classifier(
            open_exported(model),
            source,
            held_out,
            3,
            Training(**given),
            strategy,
            pathlib.Path(output),
        )
    return predictions, accuracies, *kept


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune", [True, False])
def test_two_replicas_equal_one(model, tmp_path, fine_tune):
    """All images in every step, and the same ones in both replicas, so that batch statistics are
    the same too.
    """
    predictions, accuracies, weights, loss = trained(ONE, str(model), tmp_path / "1.npz", fine_tune)
    found = with_replicas(2, trained, str(model), str(tmp_path / "2.npz"), fine_tune)
    assert len(weights) == len(found[2]) == (8 if fine_tune else 2) and list(accuracies) == [
        1,
        2,
        3,
        4,
        5,
    ]
    # The same sums in another order, in float32, over five steps of momentum.
    for before, after in zip(weights, found[2]):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[3], loss, rtol=1e-4)
    np.testing.assert_array_equal(found[0][:, 0], predictions[:, 0])
    assert found[1] == accuracies


def test_a_rate_that_is_too_high(arrays, model, tmp_path):
    with pytest.raises(
        FloatingPointError,
        match="expected a finite loss, got one that is not: lower --learning_rate",
    ):
        run(
            arrays,
            model,
            tmp_path,
            protocol="linear",
            epochs=3,
            learning_rate=1e6,
            weight_decay=1e6,
            batch_size=10,
        )
