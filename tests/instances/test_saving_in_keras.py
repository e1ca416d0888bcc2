"""Keras' ways to save and load: what comes back goes on bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lazy_sgd import LazySGD
from tests.instances.test_ring import N, batches, make, sliding_window, state

IDS = sliding_window(60)
X = batches(IDS)


def fit(model, first, last, callbacks=()):
    data = tf.data.Dataset.from_tensor_slices((X[first:last], IDS[first:last]))
    model.fit(data, verbose=0, callbacks=list(callbacks))


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


@pytest.mark.parametrize("way", [weights_h5, tensorflow_checkpoint, train_checkpoint, arrays])
def test_what_is_loaded_goes_on(way, tmp_path):
    model, _ = make(24, 0.3)
    fit(model, 0, 30)
    at_30, load = values(model), way(model, tmp_path)
    fit(model, 30, 60)
    at_60 = values(model)
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
    for way in (load, lambda again: again.set_weights(weights)):
        again = fresh(N, backbone_optimizer=keras.optimizers.Adam())
        way(again)
        fit(again, 10, 20)
        for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_early_stopping_brings_the_best_epoch_back():
    model, _ = make(24, 0.3)
    fit(model, 0, 30)
    best = values(model)
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True, mode="max")
    stop.on_train_begin()
    stop.set_model(model)
    stop.on_epoch_end(0, {"loss": 2.0})
    fit(model, 30, 60)
    stop.on_epoch_end(1, {"loss": 1.0})
    stop.on_train_end()
    assert_same(model, best)


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
    for name in ("x.h5", "x.hdf5"):
        with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
            model.save_weights(tmp_path / name)
        with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
            model.load_weights(tmp_path / name)
    assert_same(model, before)
