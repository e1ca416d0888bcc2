"""Traffic between two replicas in a step: counted while TensorFlow traces it, and in the graph
it made.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.pic import PIC
from pic_tf.replicas.collectives import distribute
from tests.processes import with_replicas

C, R = 12, 2
BASE = {"batch": 8, "dim": 16, "num_negatives": 24, "num_instances": 96, "similarity": "cosine"}
CHANGES = {
    "base": {},
    "negatives doubled": {"num_negatives": 48},
    "instances doubled": {"num_instances": 192},
    "full soft-max": {"num_negatives": 96},
    "other batch and dim": {"batch": 16, "dim": 20},
    "dot products": {"similarity": "dot"},
}


def exchanges(strategy):
    """By setting: (kind, shape, dtype) of all that crosses in a step, and [(operation, size)] in
    replica 0's graph.
    """
    crossed = []
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        record(strategy, crossed, patch)
        for name, change in CHANGES.items():
            graph = traced_step(strategy, crossed, **(BASE | change))
            operations = [
                (op.type, op.inputs[0].shape.num_elements())
                for op in graph.get_operations()
                if op.type.startswith("Collective") and op.device.endswith("CPU:0")
            ]
            results[name] = list(crossed), operations
    return results


def record(strategy, crossed, patch):
    """Write down what goes through the three methods by which a MirroredStrategy moves tensors,
    while it traces.
    """
    kinds = {
        "_gather_to_implementation": ("gather", lambda value, *_: [value]),
        "_batch_reduce_to": ("sum", lambda _, pairs, *__: [value for value, _ in pairs]),
        "_reduce_to": ("sum", lambda _, value, *__: [value]),
    }

    def recorded(kind, values_of, method):
        def call(*arguments, **options):
            if not tf.executing_eagerly():  # Keras reads metrics between steps, too
                for value in tf.nest.flatten(values_of(*arguments)):
                    own = strategy.experimental_local_results(value)[0]
                    crossed.append((kind, tuple(own.shape), own.dtype.name))
            return method(*arguments, **options)

        return call

    for name, (kind, values_of) in kinds.items():
        method = getattr(strategy.extended, name)
        patch.setattr(strategy.extended, name, recorded(kind, values_of, method))


def traced_step(strategy, crossed, batch, dim, num_negatives, num_instances, similarity):
    """The graph of a step around a linear encoder with batch normalisation; `crossed` is what
    its trace added.
    """
    with strategy.scope():
        encoder = keras.Sequential(
            [
                keras.Input([C]),
                keras.layers.Dense(dim, use_bias=False),
                keras.layers.BatchNormalization(),
            ]
        )
        model = PIC(encoder, num_instances, num_negatives, head="none", similarity=similarity)
        model.compile(LazySGD(0.1, max_updates=10))
        model.build_optimizers()  # or TensorFlow traces twice, to create the momentum
    x = np.random.default_rng(0).normal(size=(1, batch // R, C)).astype(np.float32)
    data = distribute(
        strategy, lambda r, _: tf.data.Dataset.from_tensor_slices((x, np.arange(r, batch, R)[None]))
    )
    crossed.clear()  # Keras builds its layers in graphs, too
    with strategy.scope():
        model.make_train_function()
        return model.train_tf_function.get_concrete_function(iter(data)).graph


def own_exchange(batch, dim, similarity="cosine", **_):
    """Messages that PIC sends of its own."""
    forward = [("gather", (batch // R, dim + 1))]  # embeddings and own logits
    forward += (
        [("gather", (1, batch))] if similarity == "dot" else []
    )  # the largest logits, unbounded
    forward += [("sum", (2, batch))]  # the soft-max's denominators and who was beaten
    backward = [("gather", (batch // R,)), ("sum", (batch, dim))]
    guard = [("sum", (2,))]  # whether loss and gradients are finite in all of them
    return [(*entry, "float32") for entry in forward + backward + guard]


def size(crossed):
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for _, shape, dtype in crossed)


def test_what_crosses():
    results = with_replicas(R, exchanges)
    metrics_of_base = None
    for name, change in CHANGES.items():
        crossed, operations = results[name]
        setting = BASE | change
        own = own_exchange(**setting)
        network = [
            ("sum", shape, "float32") for shape in ((C, setting["dim"]), *[(setting["dim"],)] * 2)
        ]
        assert crossed[: len(own)] == own, name
        assert crossed[len(own) : len(own + network)] == network, (
            name
        )  # the kernel and two of normalisation
        metrics = crossed[len(own + network) :]
        assert metrics and set(metrics) == {("sum", (), "float32")}, name
        metrics_of_base = metrics_of_base or metrics
        if setting["num_negatives"] == setting["num_instances"]:
            # Two scalars a metric: the norm of returning rows and how many were lifted are left out.
            assert len(metrics) == len(metrics_of_base) - 2 * 2, name
        else:
            assert metrics == metrics_of_base, name

        # Nothing got past the record. TensorFlow gathers the shapes before what is gathered, sums
        # gradients as one vector, and adds up scalars of metrics on one device, without a
        # collective.
        kinds = [kind for kind, *_ in own]
        assert sum(op.startswith("CollectiveGather") for op, _ in operations) == 2 * kinds.count(
            "gather"
        ), name
        sums = [elements for op, elements in operations if op.startswith("CollectiveReduce")]
        expected = [size([entry]) // 4 for entry in own if entry[0] == "sum"] + [size(network) // 4]
        assert sorted(sums) == sorted(expected), name

    bytes_of = {name: size(crossed) for name, (crossed, _) in results.items()}
    for name in ("negatives doubled", "instances doubled"):
        assert bytes_of[name] == bytes_of["base"], name
    assert bytes_of["full soft-max"] == bytes_of["base"] - 2 * 2 * 4  # the metrics left out
    # b (D + 1) + 2 B + b + B D + 2 numbers of 4 bytes, b = 4, B = 8, D = 16.
    assert size(own_exchange(**BASE)) == 4 * (68 + 16 + 4 + 128 + 2)
