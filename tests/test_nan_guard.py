"""A loss or gradient that is not finite reaches no weight, row, momentum or batch statistic;
what follows from it.
"""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

import pic_tf
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.instances.restore_rows import restore
from pic_tf.instances.rows import RowSnapshot, norms, snapshot
from pic_tf.optim.lars import LARS
from pic_tf.runs import run_folder
from pic_tf.runs.variables import named_variables
from pic_tf.settings import networks
from tests.beginnings import beginnings
from tests.processes import with_replicas
from tests.short_runs import SMALL, metrics_of, run

N, B = 32, 8


@tf.custom_gradient
def _poisoned(features, bad):
    return tf.identity(features), lambda upstream: (
        tf.where(bad[:, None], float("nan"), 1.0) * upstream,
        None,
    )


class PoisonGradient(keras.layers.Layer):
    """The identity, but the gradient of one kind of image is not a number: one whose first pixel
    is 100.
    """

    def call(self, inputs):
        features, images = inputs
        return _poisoned(features, images[:, 0, 0, 0] == 100.0)


def backbone():
    """With batch normalisation, so that a forward pass moves something."""
    images = keras.Input([4, 4, 3])
    x = keras.layers.Conv2D(8, 3, use_bias=False)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Dense(8)(keras.layers.Flatten()(x))
    return keras.Model(images, PoisonGradient(dtype="float32")([x, images]))


def make(backbone_optimizer=None, lars=False, **kwargs):
    keras.utils.set_random_seed(0)
    # Without a floor, which would lift rows when they come, whatever becomes of the step.
    model = pic_tf.PIC(
        backbone(), N, num_negatives=16, hidden_dim=16, embedding_dim=8, min_row_norm=0.0
    )
    backbone_optimizer = LARS(0.1, trust_coefficient=0.01) if lars else backbone_optimizer
    model.compile(pic_tf.LazySGD(0.1, max_updates=20), backbone_optimizer, **kwargs)
    model.build_optimizers()
    return model


def batch(step, poison=None):
    """Images and ids of a step; every id comes again after 4 steps, 16 rows are live.

    Poison is on one image.
    """
    rng = np.random.default_rng(step)
    ids = (np.arange(B) + B * step) % N
    images = rng.normal(size=[B, 4, 4, 3]).astype(np.float32)
    if poison == "gradient":
        images[3, 0, 0, 0] = 100.0
    elif poison == "loss":
        images[3] = float("inf")
    elif poison == "statistics":  # whose loss is finite, but not the variance
        images[3] = 1e21
    return images, ids


def state(model):
    """All of it but the counters, with rows caught up to now, so that it does not matter where
    they are.
    """
    rows = snapshot(
        model.classifier, int(model.lazy_sgd.iterations.numpy()), model.distribute_strategy
    )
    weights, momentum = model.lazy_sgd.caught_up_rows(
        rows.weights, rows.momentum, tf.constant(rows.stamp)
    )
    counters = (
        "_iterations",
        "applied",
        "taken",
        "history/products",
        "skipped",
        "metrics",
        "_current",
        "loss_scale",
    )
    variables = {
        n: v.numpy() for n, v in named_variables(model) if not any(c in n for c in counters)
    }
    return variables | {"rows": weights.numpy(), "row momentum": momentum.numpy()}


def assert_no_trace(before, after):
    """Bit for bit; but for rows: what the ring and the store exchange is rounded to float32 once
    more.
    """
    assert before.keys() == after.keys() and any("moving_mean" in name for name in before)
    for name, value in before.items():
        rounding = 1e-6 if name.startswith("row") else 0.0
        np.testing.assert_allclose(
            after[name], value, rtol=rounding, atol=1e-9 if rounding else 0.0, err_msg=name
        )


def trained(model, steps):
    for step, poison in steps:
        logs = model.train_on_batch(*batch(step, poison), return_dict=True)
    return logs


@pytest.mark.parametrize(
    "settings",
    [{}, {"jit_compile": True}, {"run_eagerly": True}, {"lars": True}],
    ids="graph compiled eager lars".split(),
)
def test_a_bad_step_leaves_no_trace(settings):
    for poison, model in zip(("gradient", "loss", "statistics"), beginnings(make(**settings), 3)):
        leaves_no_trace(poison, model)


def leaves_no_trace(poison, model):
    trained(model, [(t, None) for t in range(6)])
    before = state(model)
    logs = trained(model, [(6, poison)])
    assert logs["skipped"] == 1 and int(model.last_skipped) == 6
    assert int(model.lazy_sgd.iterations) == 7 and int(model.lazy_sgd.applied) == 6
    assert_no_trace(before, state(model))
    logs = trained(model, [(t, None) for t in range(7, 12)])
    assert logs["skipped"] == 1 and np.isfinite(logs["loss"])
    assert all(np.isfinite(value).all() for value in state(model).values())


def test_what_comes_after_is_as_if_the_step_had_not_been():
    """But for the ring, which has seen the batch: so the same ids are shown in both, without
    poison in one.
    """
    skipped, other = make(), make()
    for model in (skipped, other):
        trained(model, [(t, None) for t in range(4)])
    trained(skipped, [(4, "gradient")])
    rows = snapshot(skipped.classifier, 5, skipped.distribute_strategy)
    for (name, one), (_, two) in zip(named_variables(skipped), named_variables(other)):
        assert "backbone" not in name or np.array_equal(one.numpy(), two.numpy())
    restore(RowSnapshot(rows.weights, rows.momentum, np.minimum(rows.stamp, 4), rows.ring, rows.head), other.classifier,
          other.distribute_strategy)  # fmt: skip
    for model in (skipped, other):
        trained(model, [(t, None) for t in range(5, 12)])
    one, two = state(skipped), state(other)
    for name, value in one.items():
        # The products of the history differ by a factor of 1.
        np.testing.assert_allclose(two[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


def test_another_optimizer_of_the_backbone_gets_zeros():
    model = make(keras.optimizers.AdamW(1e-3))
    trained(model, [(0, None), (1, None)])
    before = state(model)
    trained(model, [(2, "gradient")])
    after = state(model)
    for name, value in before.items():
        assert np.isfinite(after[name]).all()
        if name.startswith("projection/") or "moving" in name:
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    np.testing.assert_allclose(
        after["rows"], before["rows"], rtol=1e-6, atol=1e-9
    )  # rounded once more


@pytest.mark.parametrize("lars", [False, True], ids=["LazySGD", "LARS"])
def test_loss_scaling_tells_an_overflow_from_a_bad_step(lars):
    """While there is scale to take off, a gradient that is not finite is no bad step; a loss
    always is.
    """
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        for poison, model in zip(("gradient", "loss"), beginnings(make(lars=lars), 2)):
            tells_an_overflow_from_a_bad_step(poison, model)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def tells_an_overflow_from_a_bad_step(poison, model):
    trained(model, [(0, None)])
    before = state(model)
    logs = trained(model, [(1, poison)])
    assert logs["skipped"] == (poison == "loss")
    # A step that overflows has a loss, one that is not finite has none.
    assert logs["loss"] > 0 or (poison == "loss" and np.isnan(logs["loss"]))
    scale = float(model.loss_scaling.loss_scale)
    for _ in range(16):
        logs = trained(model, [(2, poison)])
    assert float(model.loss_scaling.loss_scale) == 1.0
    assert logs["skipped"] == (
        17 if poison == "loss" else 16 - np.log2(scale)
    )  # halved down to 1 first
    assert_no_trace(before, state(model))


def of_two_replicas(strategy):
    """One replica's bad image stops the step of all."""
    with strategy.scope():
        model = make()

    def data(steps):
        def of_replica(replica, count):
            parts = [batch(step, poison) for step, poison in steps]
            own = [tuple(x[ids % count == replica] for x in (images, ids)) for images, ids in parts]
            return tf.data.Dataset.from_tensor_slices(tuple(np.stack(x) for x in zip(*own)))

        return pic_tf.distribute(strategy, of_replica)

    steps = [(t, None) for t in range(5)]
    model.fit(data(steps), steps_per_epoch=5, verbose=0)
    before, statistics = (
        state(model),
        [v.numpy() for v in model.backbone.non_trainable_variables[0].values],
    )
    logs = model.fit(data([(5, "gradient")]), steps_per_epoch=1, verbose=0).history
    assert_no_trace(before, state(model))
    for one, two in zip(statistics, model.backbone.non_trainable_variables[0].values):
        np.testing.assert_array_equal(one, two.numpy())
    ids = np.arange(N)
    rows = snapshot(model.classifier, 6, strategy)
    np.testing.assert_allclose(
        norms(ids, model.classifier, strategy), np.linalg.norm(rows.weights, axis=1), rtol=1e-6
    )  # float32 sums in another order
    return logs["skipped"], int(model.lazy_sgd.applied.numpy())


@pytest.mark.slow
def test_two_replicas_skip_together():
    assert with_replicas(2, of_two_replicas) == ([1], 5)


def flat_image_folder(folder):
    """40 noisy images and one that is gray: the poison for `poisoned_resnet`."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3)).astype(np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    Image.new("RGB", (20, 20), (90, 90, 90)).save(folder / "17.png")
    return folder


class PoisonFlatImages(keras.layers.Layer):
    """The identity, but an image of one colour has a gradient that is not a number."""

    def call(self, inputs):
        features, images = inputs
        bad = tf.math.reduce_std(tf.reduce_mean(images, axis=3), axis=[1, 2]) < 1e-3
        return _poisoned(features, bad)


@pytest.fixture
def settings(tmp_path, monkeypatch, shallow_networks, empty_exports):
    def poisoned_resnet(_, *arguments, channels):
        images = keras.Input([None, None, channels])
        return keras.Model(
            images, PoisonFlatImages()([pic_tf.resnet(18, *arguments)(images), images])
        )

    monkeypatch.setattr(networks, "resnet", poisoned_resnet)
    return dataclasses.replace(
        SMALL,
        dataset=str(flat_image_folder(tmp_path / "images")),
        output_dir=str(tmp_path / "run"),
        epochs=4,
        batch_size=8,
        num_negatives=None,
        jitter=(0.0, 0.0, 0.0, 0.0),
        knn_every=0,
        checkpoint_every=1,
    )


def test_a_run_stops_with_a_report_and_goes_on_where_it_is_told_to_skip(
    settings, tmp_path, capsys, monkeypatch
):
    """A signal right after a bad step does not hide it; skipping is bounded."""

    def on_train_batch_end(self, batch, logs):
        if int(self.model.skipped.numpy()):
            os.kill(os.getpid(), signal.SIGINT)
            patch.undo()

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(
            FloatingPointError,
            match=r"expected a finite loss and gradient, got another at step \d+, learn.* so far: 1;",
        ):
            run(settings)
    (path,) = (tmp_path / "run" / run_folder.NON_FINITE_REPORTS).glob("*.json")
    report = json.loads(path.read_text())
    assert (
        path.name == f"step-{report['step']:012d}.json"
        and report["skipped"] == 1
        and report["learning_rate"] > 0
    )
    (flat,) = [x for x in report["instances"] if x["image"].endswith("17.png")]
    assert flat["row_norm"] > 0 and len(report["instances"]) == 8
    with np.load(path.parent / report["batch"]) as saved:
        (place_of_flat,) = np.flatnonzero(saved["instance_ids"] == flat["id"])
        assert saved["views"].shape == (8, 8, 8, 3) and np.all(saved["views"][place_of_flat] == 90)
        assert saved["random"].shape == (8, 10)
    skipping = dataclasses.replace(settings, on_nan="skip")
    with pytest.raises(FloatingPointError, match="skipped steps so far: 3"):
        run(dataclasses.replace(skipping, max_skipped_steps=2))
    said = capsys.readouterr().err
    assert f"step {report['step']:,} skipped, its loss or gradient is not finite (1 so far)" in said
    assert run(skipping).finished
    assert float(metrics_of(tmp_path / "run")[-1]["skipped"]) >= 3  # the image came several times


@pytest.mark.slow
def test_a_run_without_a_signal_stops_too(settings):
    with pytest.raises(FloatingPointError, match="skipped steps so far: 1"):
        run(settings)
