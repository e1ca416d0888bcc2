"""Batches against crops made one by one with PIL, and as a pure function of (seed, step)."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import pipeline
from pic_tf.data.augment import Augmentation
from pic_tf.data.crops import CROP_RANDOMS, Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.folder import open_folder

SIZE = 12  # of the views in pixels
SCALE = (0.2, 1.0)
ONE = (Crop(SIZE, SCALE),)
SEVERAL = (Crop(SIZE, SCALE, 2), Crop(8, (0.05, 0.2), 3))
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


def all_batches(source, start=0, stop=12, order=ORDER, seed=7, threads=0, crops=ONE, **options):
    """[(groups, ids, weights)] of the steps start ... stop - 1 as arrays."""
    dataset = pipeline.pretraining_batches(
        source, order, crops=crops, seed=seed, start_step=start, stop_step=stop, **options
    )
    if threads:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = dataset.with_options(options)
    return list(dataset.as_numpy_iterator())


def batches(source, *arguments, **options):
    """[(views, random, ids)] of the one crop, every image of weight 1."""
    result = []
    for ((views, random),), ids, weights in all_batches(source, *arguments, **options):
        assert (weights == 1).all()
        result.append((views, random, ids))
    return result


def assert_same_bits(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)


def window_from(random, height, width, scale=SCALE):
    """torchvision's RandomResizedCrop (get_params) from given numbers: areas, aspects, row, column."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for u, v in zip(random[:10], random[10:20]):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u)
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
    dataset = pipeline.pretraining_batches(source, ORDER, crops=SEVERAL, seed=0, start_step=0, stop_step=3)
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
    dataset = pipeline.pretraining_batches(source, ORDER, crops=SEVERAL, seed=0, start_step=2, stop_step=6)
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


def write_folder(root):
    """Six PNG and JPEG files."""
    rng = np.random.default_rng(2)
    for i in range(6):
        path = root / f"{i}.{'png' if i % 2 else 'jpg'}"
        Image.fromarray(natural_image(rng, 40, 40)).save(path)
    return open_folder(root)


def test_several_views_of_an_image_are_the_crops_of_their_own_numbers(source):
    """Image after image, kind after kind, each from 32 numbers of its own."""
    for step, (groups, ids, _) in enumerate(all_batches(source, stop=3, crops=SEVERAL)):
        numbers = tf.random.stateless_uniform([4, 5, 32], tf.constant([7, step], tf.int64)).numpy()
        for (views, random), crop, first in zip(groups, SEVERAL, (0, 2)):
            own = numbers[:, first : first + crop.count].reshape(-1, 32)
            np.testing.assert_array_equal(random, own[:, CROP_RANDOMS:])
            for view, instance_id, u in zip(views, np.repeat(ids, crop.count), own.astype(np.float64)):
                image = image_of(source, instance_id)
                window = window_from(u, *image.shape[:2], crop.scale)
                assert (
                    np.abs(view - pil_crop(image, *window, crop.size)).max() <= 1
                )  # PIL's rounding between its passes
        two = groups[0][0].reshape(4, 2, SIZE, SIZE, 3)
        assert (two[:, 0] != two[:, 1]).any(axis=(1, 2, 3)).all()


def mark(view, random):
    """An augmentation of one view that shows which numbers it was given, each in the pixels of a row."""
    return tf.cast(view, tf.float32) + tf.pad(random, [[0, view.shape[0] - 10]])[:, None, None] / 256


SMALLEST = (Crop(SIZE, SCALE, 2), Crop(10, (0.05, 0.2), 1))


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
        # XLA may sum and divide in another sequence: float32 roundings of some 1e-6, times 1 / stddev = 4.5.
        np.testing.assert_allclose(on_host, augmentation(*group), atol=5e-5)
    assert_same_bits(all_batches(folder_source, 2, 4, augment=augmentation.of_one, threads=1, **kind), host[2:])


BREAK = {
    "jpg": [lambda x: x[: len(x) // 2], lambda x: x[:30], lambda _: b""],
    "png": [lambda x: x[: len(x) // 2], lambda x: x[:70] + bytes(9) + x[79:], lambda _: b"text", lambda _: b"GIF89a"],
}


@pytest.fixture(scope="module")
def good_and_broken(folder_source, tmp_path_factory):
    """The folder, and a copy of it in which seven of 21 images are broken, each in another way."""
    root = tmp_path_factory.mktemp("broken")
    ways = {"jpg": iter(BREAK["jpg"]), "png": iter(BREAK["png"])}
    broken = []
    for i in range(COUNT):
        name = folder_source.paths[i]
        content = pathlib.Path(folder_source.path(i)).read_bytes()
        way = next(ways[name[-3:]], None) if i % 3 == 0 or i > 14 else None
        if way:
            content = way(content)
            broken.append(i)
        (root / name).write_bytes(content)
    assert len(broken) == 7
    return folder_source, open_folder(root, max_broken=1.0), broken


@pytest.mark.parametrize("change", [{"crops": SEVERAL}, {"crops": SMALLEST, "augment": mark}], ids=["device", "host"])
def test_broken_images_get_weight_zero_and_touch_nothing_else(good_and_broken, change):
    good, source, broken = good_and_broken
    noted = BrokenImages(source)
    expected = all_batches(good, **change)
    dataset = pipeline.pretraining_batches(source, ORDER, seed=7, start_step=0, stop_step=12, broken=noted, **change)
    got = list(dataset.as_numpy_iterator())
    for (views, ids, weights), (those, same, ones) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_array_equal(weights, ~np.isin(ids, broken))
        assert (ones == 1).all()
        fine = np.flatnonzero(weights)
        for one, other in zip(tf.nest.flatten(views), tf.nest.flatten(those)):
            count = len(one) // len(ids)
            one, other = (x.reshape(len(ids), count, *x.shape[1:]) for x in (one, other))
            np.testing.assert_array_equal(one[fine], other[fine])
            if one.ndim == 5:  # views: those of an image of the batch stand in
                for i in np.flatnonzero(weights == 0):
                    assert not len(fine) or any((one[i] == one[j]).all() for j in fine)
    assert sorted(noted.reasons) == broken
    # They are known now, and decoded no more; nothing else changes, wherever a run starts again.
    before = dict(noted.reasons)
    assert_same_bits(list(dataset.as_numpy_iterator()), got)
    assert_same_bits(all_batches(source, 5, broken=BrokenImages(source), **change), got[5:])
    assert noted.reasons == before


def test_python_is_called_without_state(folder_source):
    """A stateful call would make tf.data do the batches of a deterministic run one after the other."""
    dataset = pipeline.pretraining_batches(folder_source, ORDER, crops=SEVERAL, seed=0, start_step=0, stop_step=2)
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert "PyFuncStateless" in ops and not ops & {"PyFunc", "EagerPyFunc"}


def test_a_batch_of_broken_images_is_black(tmp_path):
    source = write_folder(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"text")
    (((views, _),), _, weights) = all_batches(source, 0, 1, epoch_order(6, 2, seed=1))[0]
    assert (weights == 0).all() and (views == 0).all()


def test_evaluation_of_broken_images(good_and_broken):
    good, source, broken = good_and_broken
    noted = BrokenImages(source)
    views, expected = (
        np.concatenate(
            list(
                pipeline.evaluation_batches(
                    images, np.arange(COUNT), image_size=SIZE, crop_fraction=1.0, batch_size=4, broken=noted
                ).as_numpy_iterator()
            )
        )
        for images in (source, good)
    )
    fine = ~np.isin(np.arange(COUNT), list(noted.reasons))
    assert np.flatnonzero(~fine).tolist() == broken
    np.testing.assert_array_equal(views[fine], expected[fine])


def test_file_that_vanished_ends_the_batches_and_is_named(tmp_path):
    source = write_folder(tmp_path)
    (tmp_path / "4.jpg").unlink()
    with pytest.raises(tf.errors.OpError):
        all_batches(source, 0, 3, epoch_order(6, 2, seed=1))
    assert repr(str(tmp_path / "4.jpg")) in str(pipeline.find_unreadable(source, [5, 4, 3]))
    assert pipeline.find_unreadable(source, [5, 3]) is None


def test_nothing_is_named_where_all_is_well(tmp_path, array_source):
    assert pipeline.find_unreadable(write_folder(tmp_path), range(6)) is None
    assert pipeline.find_unreadable(array_source, range(len(array_source))) is None
