"""What one process cannot have, or Keras cannot save, with several replicas."""

import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.classifier import InstanceClassifier
from tests.instances.test_ring import make
from tests.processes import with_replicas


def refusals(strategy, folder):
    with strategy.scope():
        model, _ = make(24, 0.3)
        InstanceClassifier(96, 4, 24)
    for use in (
        model.get_weights,
        lambda: model.set_weights([]),
        lambda: model.save(f"{folder}/x.keras"),
        lambda: model.save_weights(f"{folder}/x.weights.h5"),
        lambda: model.save_weights(f"{folder}/x"),
        lambda: model.load_weights(f"{folder}/x"),
        lambda: fit_with(model, keras.callbacks.ModelCheckpoint(f"{folder}/x.keras")),
        lambda: fit_with(model, keras.callbacks.EarlyStopping(restore_best_weights=True)),
    ):
        with pytest.raises(ValueError, match="expected one replica to save or load in Keras' ways"):
            use()
    second = tf.distribute.MirroredStrategy(strategy.extended.worker_devices)
    with second.scope(), pytest.raises(ValueError, match="expected one strategy with several"):
        make(24, 0.3)


def fit_with(model, callback):
    model.fit(tf.data.Dataset.range(1), callbacks=[callback])


def test_refusals(tmp_path):
    with_replicas(2, refusals, tmp_path)
