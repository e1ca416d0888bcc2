"""What one process cannot have, or Keras cannot save, with several replicas."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.optim.lazy_sgd import LazySGD
from tests.instances.test_replicas import ids_of_replicas
from tests.instances.test_ring import TOLERANCE, all_rows, make, relative, train_both
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
        lambda: fit_with(model, keras.callbacks.BackupAndRestore(f"{folder}/backup")),
        lambda: fit_with(model, keras.callbacks.EarlyStopping(restore_best_weights=True)),
    ):
        with pytest.raises(ValueError, match="expected one replica to save or load in Keras' ways"):
            use()
    second = tf.distribute.MirroredStrategy(strategy.extended.worker_devices)
    with second.scope(), pytest.raises(ValueError, match="expected one strategy with several"):
        make(24, 0.3)


def another_optimizer(strategy):
    """Rows of both replicas are caught up, and go on as dense SGD in float64 does."""
    with strategy.scope():
        model, dense = make(24, 0.3)
    ids = ids_of_replicas(strategy.num_replicas_in_sync)
    for first, rate in ((0, 0.3), (40, 0.1)):
        with strategy.scope():
            model.compile(LazySGD(rate, 0.9, 5e-3))
        dense.encoder_momentum[:] = 0
        part = ids[first : first + 40]
        results, expected = train_both(model, dense, part, [rate] * 40, strategy=strategy)
        np.testing.assert_allclose(results[:, 0], expected[:, 0], rtol=TOLERANCE, atol=2e-6)
        assert relative(all_rows(model)[0], dense.rows) < TOLERANCE


def fit_with(model, callback):
    model.fit(tf.data.Dataset.range(1), callbacks=[callback])


def test_refusals(tmp_path):
    with_replicas(2, refusals, tmp_path)


@pytest.mark.slow
def test_another_optimizer():
    with_replicas(2, another_optimizer)
