"""Whole runs and a user's own `fit` over several replicas of one machine."""

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
import pic_tf.instances.rows
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.runs import checkpoint_files, open_data
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.training import loop
from tests.processes import with_replicas
from tests.short_runs import SMALL, metrics_of, model_of, run, shallow, variables_of
from tests.test_pic import images_and_ids, small_backbone

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")


def runs(strategy, folder, stops):
    """A run that is never interrupted, and one that is after these steps (counted over its
    restarts).
    """
    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)  # as in the process that looks at what it leaves
        _runs(strategy, folder, stops)


def _runs(strategy, folder, stops):
    for name, interrupted in (("whole", ()), ("parts", stops)):
        steps = iter(range(1, 1000))
        update = ProgressBar.on_train_batch_end

        def on_train_batch_end(
            self, batch, logs, steps=steps, update=update, interrupted=interrupted
        ):
            update(self, batch, logs)
            if next(steps) in interrupted:
                os.kill(os.getpid(), signal.SIGINT)

        ProgressBar.on_train_batch_end = on_train_batch_end
        settings = dataclasses.replace(SMALL, epochs=2, knn_every=0, output_dir=str(folder / name))
        for _ in interrupted:
            data = open_data.open_data(settings, strategy.num_replicas_in_sync)
            assert not loop.run(*data, strategy).finished
        if name == "parts":
            shutil.copytree(folder / "parts", folder / "other_number")
        assert loop.run(
            *open_data.open_data(settings, strategy.num_replicas_in_sync), strategy
        ).finished
        ProgressBar.on_train_batch_end = update


@pytest.mark.slow
def test_two_replicas_resume_bit_for_bit_and_one_goes_on_from_them(tmp_path):
    with_replicas(2, runs, tmp_path, (30,))
    expected, got = variables_of(tmp_path / "whole"), variables_of(tmp_path / "parts")
    assert expected.keys() == got.keys() and any(name.startswith("replicas/") for name in expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")

    settings = dataclasses.replace(
        SMALL, epochs=2, knn_every=0, output_dir=str(tmp_path / "other_number")
    )
    before = variables_of(tmp_path / "other_number")
    model = model_of(open_data.open_data(settings)[0])
    directory = tmp_path / "other_number" / "checkpoints"
    checkpoints = Checkpoints(directory, model)
    assert checkpoints.restore(checkpoints.read(checkpoint_files.newest(directory)[0])) == 30
    ring = before["ring"]
    np.testing.assert_array_equal(
        model.classifier.ids.numpy(), ring
    )  # slot p of replica r is slot 2 p + r
    weights = before["weights"]
    live = ring >= 0
    np.testing.assert_array_equal(model.classifier.weights_ring.numpy()[live], weights[ring[live]])
    result = run(settings)
    assert result.finished and result.step == 46
    losses = [float(row["loss"]) for row in metrics_of(tmp_path / "other_number")]
    assert losses[-1] < losses[0]


def mistakes(strategy):
    """Each mistake of a user's own code gets its sentence, before anything is traced."""
    outside = pic_tf.LazySGD(0.03, max_updates=200)
    with strategy.scope():
        model = pic_tf.PIC(small_backbone(), num_instances=32, hidden_dim=64)
        with pytest.raises(ValueError, match="expected a LazySGD made in the strategy's scope"):
            model.compile(outside)
        with pytest.raises(ValueError, match="expected jit_compile=False with 2 replicas"):
            model.compile(pic_tf.LazySGD(0.03, max_updates=10), jit_compile=True)
        with pytest.raises(
            ValueError, match="expected num_negatives to be a multiple of the 2 replicas, got 15"
        ):
            pic_tf.PIC(small_backbone(), num_instances=32, num_negatives=15)


def own_fit(strategy):
    """A user's own code learns, and ids of another replica are refused."""
    images, ids = images_and_ids()
    with strategy.scope():
        model = pic_tf.PIC(small_backbone(), num_instances=32, hidden_dim=64)
        model.compile(pic_tf.LazySGD(0.03, max_updates=300))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="expected ids with id % 2 == r in replica r"
    ):
        model.fit(images, ids, batch_size=8, verbose=0, shuffle=False)
    assert int(model.lazy_sgd.iterations.numpy()) == 0  # nothing moved

    def of_replica(replica, count):
        own = tf.data.Dataset.from_tensor_slices((images[replica::count], ids[replica::count]))
        return own.shuffle(16, seed=0).repeat().batch(8 // count)

    data = pic_tf.distribute(strategy, of_replica)
    history = model.fit(data, epochs=10, steps_per_epoch=20, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["accuracy"][-1] > 0.5
    assert history["live_rows"] == [32.0] * 10 and history["learning_rate"] == pytest.approx(
        [0.03] * 10
    )
    assert model.predict(images, verbose=0).shape == (32, 128)


def test_mistakes_in_a_users_own_code():
    with_replicas(2, mistakes)


@pytest.mark.slow
def test_fit_in_a_users_own_code():
    with_replicas(2, own_fit)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sixteen_bits_learn_and_rows_stay_float32(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        images, ids = images_and_ids()
        model = pic_tf.PIC(small_backbone(), num_instances=32, hidden_dim=64)
        model.compile(pic_tf.LazySGD(0.03, max_updates=200))
        assert model.backbone.layers[0].compute_dtype == policy.removeprefix("mixed_")
        assert bool(model.loss_scaling) == (policy == "mixed_float16")
        assert {
            v.dtype for v in (model.classifier.weights_ring, model.classifier.momentum_ring)
        } == {tf.float32}
        data = (
            tf.data.Dataset.from_tensor_slices((images, ids)).shuffle(32, seed=0).batch(8).repeat()
        )
        history = model.fit(data, epochs=8, steps_per_epoch=20, verbose=0).history
        assert history["loss"][-1] < 0.9 * history["loss"][0]
        assert history["accuracy"][-1] > 0.5
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_an_overflow_leaves_no_trace_but_the_step():
    """float16: the skipped step has M_t = I, so rows that rest meanwhile are not moved by it
    either.
    """
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        images, ids = images_and_ids()
        model = pic_tf.PIC(small_backbone(), num_instances=32, num_negatives=16, hidden_dim=64)
        model.compile(pic_tf.LazySGD(0.03, max_updates=10))
        model.fit(images[:8], ids[:8], batch_size=8, verbose=0)
        kept = [
            *model.trainable_variables,
            *model.lazy_sgd.momentums,
            model.classifier.store.weights,
        ]
        before = [v.numpy() for v in kept]
        scale = float(model.loss_scaling.loss_scale)
        rows = pic_tf.instances.rows.snapshot(model.classifier, 1, model.distribute_strategy)

        overflowing = np.where(ids[:8, None, None, None] == 3, np.float32(1e5), images[:8])
        model.fit(overflowing, ids[:8], batch_size=8, verbose=0)
        for one, other in zip(before, kept):
            np.testing.assert_array_equal(one, other.numpy())
        after = pic_tf.instances.rows.snapshot(model.classifier, 1, model.distribute_strategy)
        np.testing.assert_array_equal(rows.weights, after.weights)
        np.testing.assert_array_equal(rows.momentum, after.momentum)
        assert int(model.lazy_sgd.iterations) == 2 and int(model.lazy_sgd.applied) == 1
        assert float(model.loss_scaling.loss_scale) == scale / 2
        skipped = model.lazy_sgd.history.between(
            tf.constant([1], tf.int64), tf.constant(2, tf.int64)
        )
        np.testing.assert_array_equal(skipped[0], np.eye(2))
        applied = model.lazy_sgd.history.between(
            tf.constant([0], tf.int64), tf.constant(2, tf.int64)
        )
        np.testing.assert_allclose(
            applied[0], [[1 - 0.03e-4, -0.027], [1e-4, 0.9]], rtol=1e-6
        )  # the rate is float32
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_the_backbone_may_have_an_optimizer_of_its_own():
    """AdamW for the backbone: the head and the rows still move by Eq. 2."""
    images, ids = images_and_ids()
    model = pic_tf.PIC(small_backbone(), num_instances=32, num_negatives=16, hidden_dim=64)
    model.compile(pic_tf.LazySGD(0.03, max_updates=200), keras.optimizers.AdamW(1e-3))
    data = tf.data.Dataset.from_tensor_slices((images, ids)).shuffle(32, seed=0).batch(8).repeat()
    history = model.fit(data, epochs=8, steps_per_epoch=20, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert len(model.lazy_sgd.momentums) == len(model.projection.trainable_variables)
    assert int(model.backbone_optimizer.iterations) == int(model.lazy_sgd.iterations) == 160


def test_steps_count_where_only_rows_are_ours():
    """No head, and a backbone with its own optimizer: LazySGD has no variable, but rows rest and
    schedules go on.
    """
    images, ids = images_and_ids()
    model = pic_tf.PIC(small_backbone(), num_instances=32, num_negatives=16, head="none")
    rate = pic_tf.WarmupCosine(0.1, 12, 4)
    model.compile(pic_tf.LazySGD(rate, max_updates=12), keras.optimizers.AdamW(1e-3))
    data = tf.data.Dataset.from_tensor_slices((images, ids)).batch(8)
    logs = model.fit(data, epochs=3, verbose=0).history
    assert int(model.lazy_sgd.iterations) == int(model.lazy_sgd.applied) == 12
    np.testing.assert_allclose(
        logs["learning_rate"], [float(rate(t)) for t in (3, 7, 11)], rtol=1e-6
    )
