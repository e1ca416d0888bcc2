"""The model of step time against a case worked by hand, and what it says does not grow."""

import dataclasses

import pytest

from pic_tf.instances.classifier import InstanceClassifier
from tools.benchmark import step_time


@pytest.fixture
def training():
    return step_time.Training(
        per_replica_batch=2,
        embedding_dim=3,
        num_negatives=40,
        num_instances=100,
        parameters=1_000_000,
    )


@pytest.fixture
def accelerator():
    return step_time.Accelerator(
        views_per_second=1000, teraflops=1e-6, link_gigabytes=1e-3, link_latency_us=100
    )


def test_case_by_hand(training, accelerator):
    # R = 4, B = 8. Each collective moves 3/4 of what it yields (all_gather) or 6/4 of it
    # (all_reduce): embeddings with their own logits  8 (3 + 1) 4 bytes = 128 bytes, gathered: 96
    # two sums over the soft-max        2 8 4 bytes       =  64 bytes, reduced:  96 gradients of the
    # losses           8 4 bytes         =  32 bytes, gathered: 24 gradients of the embeddings
    # 8 3 4 bytes       =  96 bytes, reduced: 144
    assert step_time.pic_bytes(8, 3, 4) == 96 + 96 + 24 + 144
    assert step_time.all_reduce_bytes(4_000_000, 4) == 6_000_000
    # log2 4 = 2: two all_gathers of 2 hops, after two of their shapes, and two all_reduces of 4
    # hops.
    assert step_time.hops(4, 2, 4) == 16
    # Each of three products: 8 views x 10 rows x 3 numbers, multiplied and added.
    assert step_time.product_flops(8, 40, 3, 4) == 1440

    parts = step_time.step_time(training, accelerator, 4)
    assert parts.backbone == pytest.approx(2.0)  # 2 views at 1 a ms
    assert parts.products == pytest.approx(1.44)  # 1440 at 1e6 a second
    assert parts.collectives == pytest.approx(
        0.36 + 1.6
    )  # 360 bytes at 1e6 a second, 16 hops of 0.1 ms
    assert parts.gradients == pytest.approx(6000 + 0.4)  # 4 hops
    assert parts.total == pytest.approx(6005.8)
    assert parts.pic_share == pytest.approx(3.4 / 6005.8)
    assert step_time.images_per_second(training, accelerator, 4) == pytest.approx(8 / 6.0058)
    # Alone: 2 views in 2.0 + 1.44 ms, the products being 2 views x 40 rows.
    assert step_time.efficiency(training, accelerator, 4) == pytest.approx(3.44 / 6005.8)


def test_one_accelerator_sends_nothing(training, accelerator):
    parts = step_time.step_time(training, accelerator, 1)
    assert parts.collectives == parts.gradients == 0
    assert step_time.efficiency(training, accelerator, 1) == 1


def test_time_does_not_depend_on_the_number_of_instances(training, accelerator):
    larger = dataclasses.replace(training, num_instances=10**9)
    for count in (1, 8, 1024):
        assert step_time.step_time(larger, accelerator, count) == step_time.step_time(
            training, accelerator, count
        )


def test_communication_does_not_depend_on_the_number_of_negatives(training, accelerator):
    larger = dataclasses.replace(training, num_negatives=100)
    before, after = (step_time.step_time(x, accelerator, 4) for x in (training, larger))
    assert after.collectives == before.collectives and after.gradients == before.gradients
    assert after.products == pytest.approx(2.5 * before.products)


def test_products_of_an_accelerator_stay_when_batch_and_accelerators_grow(training, accelerator):
    assert (
        len({step_time.step_time(training, accelerator, count).products for count in (1, 2, 4, 8)})
        == 1
    )


@pytest.mark.parametrize("num_negatives", [40, 100])
def test_row_memory_is_that_of_the_layer(training, num_negatives):
    layer = InstanceClassifier(num_instances=100, embedding_dim=3, num_negatives=num_negatives)
    variables = [layer.weights_ring, layer.momentum_ring, layer.ids]
    if layer.store is not None:
        variables += layer.store.variables
    allocated = sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
    assert (
        step_time.row_memory(dataclasses.replace(training, num_negatives=num_negatives), 1)
        == allocated
    )


def test_row_memory_falls_with_accelerators(training):
    # R = 4: 10 rows in the ring, 25 and a spare one in the store; 3 numbers of w and of u, and an
    # int64.
    assert step_time.row_memory(training, 4) == (10 + 25 + 1) * (24 + 8)
