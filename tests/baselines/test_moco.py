"""MoCo v2 against Algorithm 1 in float64, over steps that wrap the queue."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.baselines.batch_groups import in_groups, shuffled
from pic_tf.baselines.moco import MoCo
from pic_tf.replicas.collectives import distribute
from tests.baselines.test_simclr import network, slopes
from tests.processes import with_replicas

TAU, M, RATE, K, B, STEPS = 0.2, 0.9, 0.5, 10, 4, 7  # a batch ends in the middle of the queue


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def algorithm_1(kernel, queue, batches):
    """Losses, kernels of both encoders and the queue after all steps of float64 batches."""
    key_kernel, losses, oldest = kernel.copy(), [], 0
    for views in batches:
        key_kernel = M * key_kernel + (1 - M) * kernel
        keys = unit(views[1::2] @ key_kernel)

        def loss(kernel, views=views, keys=keys, queue=queue):
            q = unit(views[0::2] @ kernel)
            logits = np.concatenate([np.sum(q * keys, 1, keepdims=True), q @ queue.T], 1) / TAU
            return np.mean(np.log(np.exp(logits).sum(1)) - logits[:, 0])

        losses.append(loss(kernel))
        kernel = kernel - RATE * slopes(loss, kernel)
        queue = queue.copy()
        for key in keys:
            queue[oldest] = key
            oldest = (oldest + 1) % len(queue)
    # The model's encoder of the keys is that of the next step.
    return losses, kernel, M * key_kernel + (1 - M) * kernel, queue, oldest


def trained(strategy, batches):
    with strategy.scope():
        keras.utils.set_random_seed(3)
        groups = 2
        model = MoCo(network(), K, "none", temperature=TAU, encoder_momentum=M, batch_groups=groups)
        model.compile(pic_tf.LazySGD(RATE, 0.0, 0.0, max_updates=STEPS))
    before = model.backbone.get_weights()[0], model.queue.numpy()
    ids = np.arange(B)

    def share(replica, count):
        own = ids % count == replica
        data = tf.data.Dataset.from_tensor_slices(batches[:, np.repeat(own, 2)])
        return data.map(lambda views: (views, ids[own]))

    history = model.fit(
        distribute(strategy, share), steps_per_epoch=1, epochs=STEPS, verbose=0
    ).history
    after = model.backbone.get_weights()[0], model.key_backbone.get_weights()[0]
    return before, history["loss"], after, model.queue.numpy(), int(model.oldest.numpy())


def test_steps_on_one_replica_and_on_two():
    batches = np.random.default_rng(0).normal(size=(STEPS, 2 * B, 6)).astype(np.float32)
    for count in (1, 2):
        run = trained(tf.distribute.get_strategy(), batches) if count == 1 else None
        before, losses, (kernel, key_kernel), queue, oldest = run or with_replicas(
            2, trained, batches
        )
        # Images of replica 0 come first, as their keys do.
        order = np.argsort(np.arange(B) % count, kind="stable")
        views = batches.reshape(STEPS, B, 2, 6)[:, order].reshape(batches.shape)
        expected = algorithm_1(*(x.astype(np.float64) for x in (*before, views)))
        # float32 roundings, which seven steps of rate 0.5 carry along
        np.testing.assert_allclose(losses, expected[0], rtol=2e-5)
        np.testing.assert_allclose(kernel, expected[1], atol=5e-5)
        np.testing.assert_allclose(key_kernel, expected[2], atol=5e-5)
        np.testing.assert_allclose(queue, expected[3], atol=5e-5)
        assert oldest == expected[4] == STEPS * B % K


def test_a_step_that_is_not_finite_leaves_no_trace():
    model = MoCo(network(), K, "none", batch_groups=1)
    model.compile(pic_tf.LazySGD(RATE, max_updates=2))
    state = [*model.backbone.variables, *model.key_backbone.variables, model.queue, model.oldest]
    before = [variable.numpy() for variable in state]
    views = np.ones([2 * B, 6], np.float32)
    views[0, 0] = np.nan
    history = model.fit(tf.data.Dataset.from_tensors((views, np.arange(B))), verbose=0).history
    assert history["skipped"] == [1]
    for variable, value in zip(state, before):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_frozen_backbones_keep_their_statistics_and_unfrozen_ones_are_followed():
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization()]
    backbone = keras.Sequential([keras.Input([6]), *layers])
    backbone.trainable = False
    model = MoCo(backbone, K, "linear", embedding_dim=3, encoder_momentum=M, batch_groups=2)
    backbone.trainable = True  # after the encoder of the keys was made
    model.compile(pic_tf.LazySGD(RATE, max_updates=2), run_eagerly=True)
    views = np.random.default_rng(5).normal(size=(2 * B, 6)).astype(np.float32)

    def step():
        model.fit(tf.data.Dataset.from_tensors((views, np.arange(B))), verbose=0)
        return backbone.get_weights(), model.key_backbone.get_weights()

    model.freeze_backbone()
    first = backbone.get_weights()
    for found in step():
        # Keys follow what does not move: 0.9 w + 0.1 w is w but for a rounding of float32.
        np.testing.assert_allclose(found[0], first[0], rtol=1e-6)
        np.testing.assert_array_equal(found[-2:], first[-2:])  # mean and variance
    model.freeze_backbone(False)
    queries, keys = step()
    assert np.abs(queries[0] - first[0]).max() > 1e-3 and (queries[-1] != first[-1]).all()
    # roundings of float32
    np.testing.assert_allclose(keys[0], M * first[0] + (1 - M) * queries[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)], ids=["head", "maps"])
def test_groups_have_batch_statistics_of_their_own(shape):
    """Against the same layer on each group alone; running statistics move to the mean."""
    x = tf.constant(np.random.default_rng(2).normal(size=(12, *shape)) * 5, tf.float32)
    layers = [keras.layers.BatchNormalization(momentum=0.9, scale=len(shape) > 1) for _ in range(4)]
    for layer in layers:
        layer.build([None, *shape])
        layer.moving_mean.assign([1.0, 2.0, 3.0])
        layer.beta.assign([0.5, 0.0, -0.5])
    inputs = keras.Input(shape)
    nested = keras.Sequential([keras.Input(shape), layers[0]])
    network = in_groups(keras.Model(inputs, nested(inputs)), 3)

    def result_and_gradient(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x, training=True)
            loss = tf.reduce_sum(result**3)
        return result, tape.gradient(loss, x)

    found = result_and_gradient(network, x)
    for i, layer in enumerate(layers[1:]):
        group = slice(4 * i, 4 * i + 4)
        expected = result_and_gradient(layer, x[group])
        # float32 roundings in another order of the sums
        np.testing.assert_allclose(found[0][group], expected[0], atol=1e-5)
        np.testing.assert_allclose(found[1][group], expected[1], atol=1e-4)
    for got, *of_groups in zip(*(layer.non_trainable_weights for layer in layers)):
        mean = np.mean([variable.numpy() for variable in of_groups], axis=0)
        np.testing.assert_allclose(got, mean, rtol=1e-6)
    np.testing.assert_allclose(network(x), layers[0](x))  # not in training


def test_keys_change_groups_and_come_back():
    """Each key is its own view's; the groups are others than those of the queries, by seed and
    step.
    """
    views = tf.range(16, dtype=tf.float32)[:, None]
    seen = []

    def embed(x):
        seen.append(x.numpy()[:, 0])
        return 2 * x

    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        keys = shuffled(embed, views, seed, tf.constant(step, tf.int64))
        np.testing.assert_array_equal(keys, 2 * views)
    assert all(sorted(order) == list(range(16)) for order in seen)
    assert len({tuple(order) for order in seen}) == 3  # the last is the first once more
    assert all(set(order[:4]) != {0, 1, 2, 3} for order in seen)


def test_values_out_of_range():
    with pytest.raises(ValueError, match="expected batch_groups to be a multiple of the 1 replica"):
        MoCo(network(), K, batch_groups=0)
    channels_first = keras.Sequential([keras.Input([3, 4]), keras.layers.BatchNormalization(1)])
    with pytest.raises(ValueError, match=r"expected batch normalisation of the last axis, got .1."):
        in_groups(channels_first, 2)
    model = MoCo(network(), K, "none", batch_groups=3)
    model.compile(pic_tf.LazySGD(max_updates=2))
    batch = np.ones([2 * B, 6], np.float32), np.arange(B)
    data = tf.data.Dataset.from_tensors(batch)
    with pytest.raises(ValueError, match=r"expected a multiple of 3 images \(batch_groups\), at"):
        model.fit(data, verbose=0)
    unknown = tf.data.Dataset.from_generator(
        lambda: iter([batch]),
        output_signature=(tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.int64)),
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\(num_negatives\), a batch and.* 4"):
        model.fit(unknown, verbose=0)
