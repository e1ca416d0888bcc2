"""Batches against crops made one by one with PIL, and as a pure function of (seed, step)."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import pipeline
from pic_tf.data.crops import CROP_RANDOMS
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.sources import ArraySource, open_folder

SIZE = 12  # of the views in pixels
SCALE = (0.2, 1.0)
COUNT = 21  # images
ORDER = SlidingWindow(COUNT, batch_size=4, window_size=12, window_stride=4, seed=5)


def natural_image(rng, height, width):
    coarse = rng.integers(0, 256, [height // 6 + 2, width // 6 + 2, 3], np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def array_source():
    rng = np.random.default_rng(0)
    return ArraySource(np.stack([natural_image(rng, 24, 30) for _ in range(COUNT)]))


@pytest.fixture(scope="module")
def folder_source(tmp_path_factory):
    """PNG and JPEG files, each of another size."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for i in range(COUNT):
        image = natural_image(rng, *rng.integers(13, 70, 2))
        Image.fromarray(image).save(root / f"{i:02d}.{'png' if i % 2 else 'jpg'}")
    return open_folder(root)


@pytest.fixture(params=["array", "folder"])
def source(request):
    return request.getfixturevalue(f"{request.param}_source")


def image_of(source, instance_id):
    """uint8 [H, W, 3] of an instance, files as PIL reads them."""
    if isinstance(source, ArraySource):
        return source.images[instance_id]
    return np.asarray(Image.open(source.path(instance_id)).convert("RGB"))


def batches(source, start=0, stop=12, order=ORDER, seed=7, threads=0):
    """[(views, random, ids)] of the steps start ... stop - 1 as arrays."""
    dataset = pipeline.pretraining_batches(
        source, order, image_size=SIZE, crop_scale=SCALE, seed=seed, start_step=start, stop_step=stop
    )
    if threads:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = dataset.with_options(options)
    return [(views, random, ids) for (views, random), ids in dataset.as_numpy_iterator()]


def assert_same_bits(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def window_from(random, height, width):
    """torchvision's RandomResizedCrop (get_params) from given numbers: areas, aspects, row, column."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for u, v in zip(random[:10], random[10:20]):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * u)
        aspect = math.exp(low + (high - low) * v)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(random[20] * (height - h + 1)), int(random[21] * (width - w + 1)), h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def pil_crop(image, top, left, height, width, size=SIZE):
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def test_views_are_the_crops_of_their_instances(source):
    """Order, random numbers, window, decoding and resize of every step done again outside of the pipeline."""
    for step, (views, random, ids) in enumerate(batches(source)):
        np.testing.assert_array_equal(ids, ORDER.instance_ids(step))
        numbers = tf.random.stateless_uniform([4, CROP_RANDOMS + 10], tf.constant([7, step], tf.int64)).numpy()
        np.testing.assert_array_equal(random, numbers[:, CROP_RANDOMS:])
        for view, instance_id, u in zip(views, ids, numbers.astype(np.float64)):
            image = image_of(source, instance_id)
            expected = pil_crop(image, *window_from(u, *image.shape[:2]))
            # PIL rounds to uint8 between its two passes as well, which moves the result by at most one level.
            assert np.abs(view - expected).max() <= 1


def test_element_spec_is_static(source):
    dataset = pipeline.pretraining_batches(
        source, ORDER, image_size=SIZE, crop_scale=SCALE, seed=0, start_step=0, stop_step=3
    )
    assert dataset.element_spec == (
        (tf.TensorSpec([4, SIZE, SIZE, 3], tf.uint8), tf.TensorSpec([4, 10], tf.float32)),
        tf.TensorSpec([4], tf.int64),
    )
    (views, random), ids = next(iter(dataset))
    assert views.shape == (4, SIZE, SIZE, 3) and random.shape == (4, 10) and ids.shape == (4,)


def test_start_at_a_step_equals_skipping_the_steps_before(source):
    whole = batches(source)
    for start in (1, 2, 5, 11):
        assert_same_bits(batches(source, start), whole[start:])


def test_number_of_threads_changes_nothing(source):
    assert_same_bits(batches(source, threads=1), batches(source, threads=4))


def test_second_iteration_repeats_the_first(source):
    dataset = pipeline.pretraining_batches(
        source, ORDER, image_size=SIZE, crop_scale=SCALE, seed=0, start_step=2, stop_step=6
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
        assert all((ids % 2 == replica).all() and views.shape == (2, SIZE, SIZE, 3) for views, _, ids in share)
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


def write_folder(root, broken=None, content=b""):
    """Six good PNG and JPEG files, or one of them spoilt."""
    rng = np.random.default_rng(2)
    for i in range(6):
        path = root / f"{i}.{'png' if i % 2 else 'jpg'}"
        Image.fromarray(natural_image(rng, 40, 40)).save(path)
        if i == broken:
            whole = path.read_bytes()
            path.write_bytes(content or whole[: len(whole) // 2])
    return open_folder(root)


@pytest.mark.parametrize("broken", [2, 3])
def test_broken_file_stops_the_batches_and_is_named(tmp_path, broken):
    """A JPEG and a PNG of which half is lost: their first bytes are right, so only decoding finds out."""
    source, order = write_folder(tmp_path, broken), epoch_order(6, 2, seed=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(source, 0, 3, order)
    assert repr(str(tmp_path / source.paths[broken])) in str(pipeline.find_undecodable(source, range(6)))


def test_file_that_vanished_is_named(tmp_path):
    source = write_folder(tmp_path)
    (tmp_path / "4.jpg").unlink()
    assert repr(str(tmp_path / "4.jpg")) in str(pipeline.find_undecodable(source, [5, 4, 3]))
    assert pipeline.find_undecodable(source, [5, 3]) is None


def test_nothing_is_named_where_all_is_well(tmp_path, array_source):
    assert pipeline.find_undecodable(write_folder(tmp_path), range(6)) is None
    assert pipeline.find_undecodable(array_source, range(len(array_source))) is None
