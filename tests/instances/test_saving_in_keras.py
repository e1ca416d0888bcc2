"""Keras' ways to save and load: what comes back goes on bit for bit."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tf_keras.callbacks import ModelCheckpoint

from pic_tf.models.probe import LinearProbe
from pic_tf.optim.lars import LARS
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.optim.variables import variables_of
from pic_tf.pic import PIC
from tests.instances.test_ring import C, N, batches, make, sliding_window, state

IDS = sliding_window(60)
X = batches(IDS)


def fit(model, first, last, callbacks=()):
    data = tf.data.Dataset.from_tensor_slices((X[first:last], IDS[first:last]))
    model.fit(data, verbose=0, callbacks=callbacks or None)


def fresh(num_negatives=24, **compiled):
    """A model of other weights, that has taken no step."""
    keras.utils.set_random_seed(1)
    model, _ = make(num_negatives, 0.3)
    if compiled:
        model.compile(LazySGD(0.3, 0.9, 5e-3, max_updates=1000), **compiled)
    model.build_optimizers()  # TensorFlow's checkpoints fill them where they are made, else later
    return model


def values(model):
    return [variable.numpy() for variable in [*state(model), model.skipped, model.last_skipped]]


def assert_same(model, expected):
    for one, other in zip(values(model), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def weights_h5(model, folder):
    model.save_weights(folder / "x.weights.h5")
    return lambda again: again.load_weights(folder / "x.weights.h5")


def tensorflow_checkpoint(model, folder):
    model.save_weights(folder / "x")
    return lambda again: again.load_weights(folder / "x")


def train_checkpoint(model, folder):
    path = tf.train.Checkpoint(model=model).save(folder / "x")
    return lambda again: tf.train.Checkpoint(model=again).restore(path)


def arrays(model, folder):
    weights = model.get_weights()
    return lambda again: again.set_weights(weights)


@pytest.fixture(scope="module")
def trained():
    """A model, its arrays after 30 steps, and its values then and after 60."""
    keras.utils.set_random_seed(0)
    model, _ = make(24, 0.3)
    fit(model, 0, 30)
    weights, at_30 = model.get_weights(), values(model)
    fit(model, 30, 60)
    return model, weights, at_30, values(model)


@pytest.mark.parametrize("way", [weights_h5, tensorflow_checkpoint, train_checkpoint, arrays])
def test_what_is_loaded_goes_on(way, trained, tmp_path):
    model, weights, at_30, at_60 = trained
    model.set_weights(weights)
    load = way(model, tmp_path)
    fit(model, 30, 60)
    for again in (model, fresh()):
        load(again)
        assert_same(again, at_30)
        fit(again, 30, 60)
        assert_same(again, at_60)


def test_all_instances_in_the_ring_and_another_optimizer_of_the_backbone(tmp_path):
    model = fresh(N, backbone_optimizer=keras.optimizers.Adam())
    fit(model, 0, 10)
    load, weights = weights_h5(model, tmp_path), model.get_weights()
    fit(model, 10, 20)
    expected = model.get_weights()
    again = fresh(N, backbone_optimizer=keras.optimizers.Adam())
    for each, way in ((again, load), (model, lambda each: each.set_weights(weights))):
        way(each)
        fit(each, 10, 20)
        for one, other in zip(expected, each.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_early_stopping_brings_the_best_epoch_back(trained):
    model, weights, best, _ = trained
    model.set_weights(weights)
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True, mode="max")
    stop.on_train_begin()
    stop.set_model(model)
    stop.on_epoch_end(0, {"loss": 2.0})
    fit(model, 30, 60)
    stop.on_epoch_end(1, {"loss": 1.0})
    stop.on_train_end()
    assert_same(model, best)


@keras.saving.register_keras_serializable("tests")
def brighter(images):
    return 1.5 * images


def everything(model):
    """Every variable by its path, of metrics and of the probe too."""
    return {name: variable.numpy() for name, variable in variables_of({"model": model})}


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_whole_model_is_loaded_and_goes_on(precision, tmp_path):
    """By a callback; with all arguments that are not the default."""
    keras.mixed_precision.set_global_policy(precision)
    try:
        encoder = keras.Sequential([keras.Input([C]), keras.layers.Dense(6), norm(), dense()])
        model = PIC(
            encoder,
            N,
            24,
            "mlp_bn",
            8,
            5,
            0.3,
            "dot",
            min_row_norm=0.5,
            augment=brighter,
            small_crops_move_rows=True,
            seed=4,
            name="mine",
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    encoder.layers[0].trainable = False
    own = LARS(1e-2) if precision == "mixed_float16" else keras.optimizers.AdamW(1e-3)
    rate = WarmupCosine(0.1, 40, 4)
    model.compile(LazySGD(rate, 0.8, 1e-3, 60), own, steps_per_execution=2)
    path = str(tmp_path / "x.keras")
    fit(model, 0, 10, [ModelCheckpoint(path)])
    again = keras.models.load_model(path)
    assert type(again) is PIC and again.get_config() == model.get_config()
    assert again.get_compile_config() == model.get_compile_config()
    for _ in range(2):
        before, after = everything(model), everything(again)
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        fit(model, 10, 20)
        fit(again, 10, 20)
    looked_at = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(
        looked_at.classifier.ids, keras.models.load_model(path).classifier.ids
    )
    looked_at.compile(LazySGD(0.1))
    with pytest.raises(ValueError, match="expected the LazySGD that these rows were trained with"):
        fit(looked_at, 0, 1)


def test_a_probe_is_saved_and_an_augmentation_that_is_lost_refused(tmp_path):
    encoder = keras.Sequential([keras.Input([C]), dense()])
    model = PIC(encoder, N, probe=LinearProbe(4, 3, 0.2), augment=lambda images: images)
    with pytest.raises(ValueError, match=r"expected a registered augment .* got <lambda>"):
        model.save(tmp_path / "x.keras")
    model.augment = None
    model.probe.kernel.assign(tf.ones([4, 3]))
    model.compile(LazySGD(0.1), jit_compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    assert again.jit_compiled
    assert again.probe.get_config() == model.probe.get_config()
    np.testing.assert_array_equal(again.probe.kernel, model.probe.kernel)


def dense():
    return keras.layers.Dense(4, use_bias=False)


def norm():
    return keras.layers.BatchNormalization()


def test_rows_that_are_not_all_on_the_device_are_refused(tmp_path):
    model, _ = make(24, 0.3, rows_on_device=40)
    for use in (
        model.get_weights,
        lambda: model.save_weights(tmp_path / "x"),
        lambda: model.save(tmp_path / "x.keras"),
        lambda: fit(model, 0, 1, keras.callbacks.EarlyStopping(restore_best_weights=True)),
        lambda: fit(
            model, 0, 1, ModelCheckpoint(tmp_path / "x.weights.h5", save_weights_only=True)
        ),
    ):
        with pytest.raises(ValueError, match=r"^expected all rows on the device to save or load"):
            use()


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    model, _ = make(24, 0.3)
    fit(model, 0, 3)
    model.save_weights(tmp_path / "x.weights.h5")
    fit(model, 3, 6)
    before = values(model)
    short, _ = make(24, 0.3)
    short.compile(LazySGD(0.3, max_updates=10))
    with pytest.raises(ValueError, match="with the same max_updates"):
        model.set_weights(short.get_weights())
    with pytest.raises(ValueError, match=r"expected the \d+ arrays of this model and its opt"):
        model.set_weights(model.get_weights()[:-1])
    short.save_weights(tmp_path / "short.weights.h5")
    with pytest.raises(ValueError, match="with the same max_updates"):
        model.load_weights(tmp_path / "short.weights.h5")
    for name in ("x", "x.h5"):
        for use in (model.save, lambda path: fit(model, 0, 1, [ModelCheckpoint(path)])):
            with pytest.raises(ValueError, match=r"expected a name that ends in \.keras for the"):
                use(str(tmp_path / name))
    for name in ("x.h5", "x.hdf5"):
        with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
            fit(model, 0, 1, ModelCheckpoint(tmp_path / name, save_weights_only=True))
        with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
            model.save_weights(tmp_path / name)
        with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
            model.load_weights(tmp_path / name)
    assert_same(model, before)
