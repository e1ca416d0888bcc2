"""Other methods go on from a checkpoint as if they had never stopped, bit for bit."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

import pic_tf
from pic_tf.baselines.instdisc import InstanceDiscrimination
from pic_tf.baselines.moco import MoCo
from pic_tf.baselines.simclr import SimCLR
from pic_tf.runs import checkpoint_files
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.variables import named_variables
from tests.baselines.test_simclr import network
from tests.short_runs import SMALL, assert_same_run, metrics_of, run, signals_after

N, B, STEPS = 20, 4, 4
MODELS = {
    "simclr": lambda: SimCLR(network(), "mlp_bn", 8, 6),
    "instdisc": lambda: InstanceDiscrimination(network(), N, "mlp_bn", 8, 6),
    "mocov2": lambda: MoCo(network(), 7, "mlp_bn", 8, 6, batch_groups=2),
}


def batches(name, first, last):
    """Steps first ... last - 1, a function of their number alone."""
    each = 1 if name == "instdisc" else 2

    def batch(step):
        rng = np.random.default_rng(step)
        return rng.normal(size=(each * B, 6)).astype(np.float32), rng.permutation(N)[:B]

    views, ids = zip(*map(batch, range(first, last)))
    return tf.data.Dataset.from_tensor_slices((np.stack(views), np.stack(ids)))


def made(name):
    model = MODELS[name]()
    model.compile(pic_tf.LazySGD(0.1, max_updates=2 * STEPS))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_save_and_restore_bit_for_bit(name, tmp_path):
    model = made(name)
    checkpoints = Checkpoints(tmp_path, model)
    model.fit(batches(name, 0, STEPS), verbose=0)
    checkpoints.save(dict)
    checkpoints.wait()
    model.fit(batches(name, STEPS, 2 * STEPS), verbose=0)
    other = made(name)  # other first weights
    restored = Checkpoints(tmp_path, other)
    found, _ = checkpoint_files.newest(tmp_path)
    assert restored.restore(restored.read(found)) == STEPS
    other.fit(batches(name, STEPS, 2 * STEPS), verbose=0)
    expected, got = dict(named_variables(model)), dict(named_variables(other))
    assert expected.keys() == got.keys()
    for variable in expected:
        np.testing.assert_array_equal(got[variable].numpy(), expected[variable].numpy(), variable)
    rows = {}
    if name == "instdisc":
        rows = {"weights_ring": model.classifier.weights_ring, "ids": model.classifier.ids}
        rows |= {"momentum_ring": model.classifier.momentum_ring, "head": model.classifier.head}
        for row in rows:
            np.testing.assert_array_equal(rows[row].numpy(), getattr(other.classifier, row).numpy())
    # All that the model holds is in the checkpoint.
    assert {id(v) for v in model.weights} <= {id(v) for v in (expected | rows).values()}


@pytest.mark.parametrize("name", MODELS)
def test_what_keras_could_not_load_or_judge_is_refused_at_once(name, tmp_path):
    model = made(name)
    with pytest.raises(ValueError, match=r"^expected save_weights of a .*, got save, [^\n]*$"):
        model.save(tmp_path / "x.keras")
    with pytest.raises(ValueError, match=r"^expected fit without validation data, got some: "):
        model.fit(batches(name, 0, 1), validation_data=batches(name, 1, 2))
    assert not list(tmp_path.iterdir()) and model.lazy_sgd.iterations == 0


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    with_rows = pic_tf.PIC(network(), N, head="mlp_bn", hidden_dim=8, embedding_dim=6)
    with_rows.compile(pic_tf.LazySGD(0.1, max_updates=2 * STEPS))
    checkpoints = Checkpoints(tmp_path, with_rows)
    checkpoints.save(dict)
    checkpoints.wait()
    found, _ = checkpoint_files.newest(tmp_path)
    with pytest.raises(ValueError, match=r"does not fit .it is one of another --method.*: use"):
        Checkpoints(tmp_path, made("simclr")).read(found)


def settings_of(method, output_dir):
    return dataclasses.replace(
        SMALL,
        method=method,
        num_negatives=None,
        epochs=1,
        knn_every=0,
        output_dir=str(output_dir),
    )


@pytest.mark.usefixtures("shallow_networks", "empty_exports")
def test_a_run_names_its_method(tmp_path):
    assert run(settings_of("mocov2", tmp_path)).finished
    assert "--method=mocov2\n" in (tmp_path / "flags.txt").read_text()
    card = json.loads((tmp_path / "backbone" / "model_card.json").read_text())
    assert card["training"]["flags"]["method"] == "mocov2"
    (row,) = metrics_of(tmp_path)
    # With random embeddings the loss is ln 129, the mean of 128 keys in the queue and the own one.
    assert 0 < float(row["loss"]) < 7 and row["left_out"] == "0.0" and not row["live_rows"]


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_networks", "empty_exports")
@pytest.mark.parametrize("method", [*MODELS, "diet"])
def test_a_run_that_is_interrupted_within_an_epoch(method, tmp_path, monkeypatch):
    once, twice = (settings_of(method, tmp_path / name) for name in ("once", "twice"))
    assert run(once).finished
    signals_after(monkeypatch, 5)
    assert run(twice).step == 5
    assert run(twice).finished
    assert_same_run(twice.output_dir, once.output_dir)
