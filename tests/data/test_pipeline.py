"""Batches against crops made one by one with PIL, and as a pure function of (seed, step)."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import pipeline
from pic_tf.data.augment import Augmentation
from pic_tf.data.crops import CROP_RANDOMS, Crop
from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources.array import ArraySource
from tests.data.batches import (
    COUNT,
    ORDER,
    SCALE,
    SEVERAL,
    SIZE,
    SMALLEST,
    all_batches,
    assert_same_bits,
    mark,
    pil_crop,
    window_from,
)


@pytest.fixture(params=["array", "folder"])
def source(request):
    return request.getfixturevalue(f"{request.param}_source")


def image_of(source, instance_id):
    """uint8 [H, W, 3] of an instance, files as PIL reads them."""
    if isinstance(source, ArraySource):
        return source.images[instance_id]
    return np.asarray(Image.open(source.path(instance_id)).convert("RGB"))


def batches(source, *arguments, **options):
    """[(views, random, ids)] of the one crop, every image of weight 1."""
    result = []
    for ((views, random),), ids, weights in all_batches(source, *arguments, **options):
        assert (weights == 1).all()
        result.append((views, random, ids))
    return result


def test_views_are_the_crops_of_their_instances(source):
    """Order, random numbers, window, decoding and resize of every step done again outside of the
    pipeline.
    """
    for step, (views, random, ids) in enumerate(batches(source)):
        np.testing.assert_array_equal(ids, ORDER.instance_ids(step))
        numbers = tf.random.stateless_uniform(
            [4, CROP_RANDOMS + 10], tf.constant([7, step], tf.int64)
        ).numpy()
        np.testing.assert_array_equal(random, numbers[:, CROP_RANDOMS:])
        for view, instance_id, u in zip(views, ids, numbers.astype(np.float64)):
            image = image_of(source, instance_id)
            expected = pil_crop(image, *window_from(u, *image.shape[:2]))
            # PIL rounds to uint8 between its two passes as well, which moves the result by at most
            # one level.
            assert np.abs(view - expected).max() <= 1


def test_element_spec_is_static(source):
    dataset = pipeline.pretraining_batches(
        source, ORDER, crops=SEVERAL, seed=0, start_step=0, stop_step=3
    )
    assert dataset.element_spec == (
        (
            (tf.TensorSpec([8, SIZE, SIZE, 3], tf.uint8), tf.TensorSpec([8, 10], tf.float32)),
            (tf.TensorSpec([12, 8, 8, 3], tf.uint8), tf.TensorSpec([12, 10], tf.float32)),
        ),
        tf.TensorSpec([4], tf.int64),
        tf.TensorSpec([4], tf.float32),
    )


def test_start_at_a_step_equals_skipping_the_steps_before(source):
    whole = batches(source)
    for start in (1, 2, 5, 11):
        assert_same_bits(batches(source, start), whole[start:])


def test_number_of_threads_changes_nothing(source):
    assert_same_bits(batches(source, threads=1), batches(source, threads=4))


def test_second_iteration_repeats_the_first(source):
    dataset = pipeline.pretraining_batches(
        source, ORDER, crops=SEVERAL, seed=0, start_step=2, stop_step=6
    )
    for one, other in zip(dataset, dataset):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_length_is_the_number_of_steps(source):
    assert [len(batches(source, 3, stop)) for stop in (3, 4, 9)] == [0, 1, 6]


def test_seed_and_step_change_the_crops_but_not_the_ids(array_source):
    """Other crops for another seed; no two steps share their numbers."""
    one, other = batches(array_source, seed=1), batches(array_source, seed=2)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a[2], b[2])
        assert (a[0] != b[0]).any() and (a[1] != b[1]).all()
    assert len({random.tobytes() for _, random, _ in one + other}) == len(one + other)


def test_replicas_draw_their_own_numbers(array_source):
    """Ids r mod R for replica r, and no step of any replica shares its numbers with another."""
    orders = [SlidingWindow(COUNT, 4, 8, 4, 5, replica, 2) for replica in range(2)]
    shares = [batches(array_source, order=order) for order in orders]
    for replica, share in enumerate(shares):
        assert all(
            (ids % 2 == replica).all() and views.shape == (2, SIZE, SIZE, 3)
            for views, _, ids in share
        )
    assert len({random.tobytes() for share in shares for _, random, _ in share}) == 24


@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_evaluation_keeps_the_order_and_the_last_images(source, fraction):
    """Ten ids in batches of four: four, four, two; central squares."""
    wanted = [20, 3, 3, 7, 0, 1, 19, 12, 5, 8]
    dataset = pipeline.evaluation_batches(
        source, np.array(wanted), image_size=SIZE, crop_fraction=fraction, batch_size=4
    )
    assert dataset.element_spec == tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8)
    got = list(dataset.as_numpy_iterator())
    assert [len(batch) for batch in got] == [4, 4, 2]
    for view, instance_id in zip(np.concatenate(got), wanted):
        image = image_of(source, instance_id)
        height, width = image.shape[:2]
        side = round(min(height, width) * fraction)
        expected = pil_crop(image, (height - side) // 2, (width - side) // 2, side, side)
        assert np.abs(view - expected).max() <= 1  # PIL's rounding between its passes


def test_several_views_of_an_image_are_the_crops_of_their_own_numbers(source):
    """Image after image, kind after kind, each from 32 numbers of its own."""
    for step, (groups, ids, _) in enumerate(all_batches(source, stop=3, crops=SEVERAL)):
        numbers = tf.random.stateless_uniform([4, 5, 32], tf.constant([7, step], tf.int64)).numpy()
        for (views, random), crop, first in zip(groups, SEVERAL, (0, 2)):
            own = numbers[:, first : first + crop.count].reshape(-1, 32)
            np.testing.assert_array_equal(random, own[:, CROP_RANDOMS:])
            for view, instance_id, u in zip(
                views, np.repeat(ids, crop.count), own.astype(np.float64)
            ):
                image = image_of(source, instance_id)
                window = window_from(u, *image.shape[:2], crop.scale)
                assert (
                    np.abs(view - pil_crop(image, *window, crop.size)).max() <= 1
                )  # PIL's rounding between its passes
        two = groups[0][0].reshape(4, 2, SIZE, SIZE, 3)
        assert (two[:, 0] != two[:, 1]).any(axis=(1, 2, 3)).all()


def test_restart_and_threads_change_nothing_for_other_inputs(source):
    whole = all_batches(source, stop=6, crops=SMALLEST, augment=mark)
    assert_same_bits(all_batches(source, 4, 6, crops=SMALLEST, augment=mark, threads=1), whole[4:])
    device = all_batches(source, stop=6, crops=SMALLEST, threads=4)
    for (groups, *rest), (views, *same) in zip(device, whole, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, rest, same)
        for (view, random), marked in zip(groups, views):
            expected = view.astype(np.float32)
            expected[:, :10] += random[:, :, None, None] / 256
            np.testing.assert_array_equal(marked, expected)


def test_augmentation_on_the_host_is_that_on_the_device(folder_source):
    """And the same bits with other threads and from another step on."""
    augmentation, kind = Augmentation(), {"crops": (Crop(SIZE, SCALE, 2),)}
    device = all_batches(folder_source, stop=4, **kind)
    host = all_batches(folder_source, stop=4, augment=augmentation.of_one, **kind)
    for ((group,), *rest), ((on_host,), *same) in zip(device, host, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, rest, same)
        # XLA may sum and divide in another sequence: float32 roundings of some 1e-6, times 1 /
        # stddev = 4.5.
        np.testing.assert_allclose(on_host, augmentation(*group), atol=5e-5)
    assert_same_bits(
        all_batches(folder_source, 2, 4, augment=augmentation.of_one, threads=1, **kind), host[2:]
    )


def test_python_is_called_without_state(folder_source):
    """A stateful call would make tf.data do the batches of a deterministic run one after the
    other.
    """
    dataset = pipeline.pretraining_batches(
        folder_source, ORDER, crops=SEVERAL, seed=0, start_step=0, stop_step=2
    )
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert "PyFuncStateless" in ops and not ops & {"PyFunc", "EagerPyFunc"}
