"""Make the batch of each step, ids -> images -> crops, as a pure function of (seed, step)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from pic_tf.data.augment import AUGMENT_RANDOMS, normalise
from pic_tf.data.crops import CROP_RANDOMS, Crop, central_window, random_window, total
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import IMAGENET, Normalisation
from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources.source import Source
from pic_tf.data.views import cut_views

OfOne = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@tf.autograph.experimental.do_not_convert
def pretraining_batches(
    source: Source,
    order: SlidingWindow,
    *,
    crops: Sequence[Crop],
    seed: int,
    start_step: int,
    stop_step: int,
    broken: BrokenImages | None = None,
    augment: OfOne | None = None,
) -> tf.data.Dataset:
    """Make the batches of the steps start_step ... stop_step - 1.

    An image that cannot be decoded gets weight 0 and the views of another image of the batch, so
    that all views are natural images. An image that cannot be read ends the batches.

    Args:
      source: the images.
      order: the instances that each step visits.
      crops: kinds of views of each image.
      seed: seed of the crops and of the augmentation.
      start_step: first step.
      stop_step: one past the last step.
      broken: list of images that cannot be decoded, to add to.
      augment: maps a view [size, size, C] and its numbers float32 [10] to float32
        [size, size, C] here, on the host (`Augmentation.of_one`); None where the model does so.

    Returns:
      Dataset of (groups, instance_ids int64 [b], weights float32 [b]). Each of `crops` gives a
      group: (views [b n, size, size, C], uint8 or uint16 as the images, random float32 [b n, 10]),
      the n views of an image one after another, where `random` drives an augmentation; with
      `augment` a group is its outcome, float32 [b n, size, size, C].
    """
    batch, count = order.batch_size // order.num_replicas, total(crops)
    randoms = CROP_RANDOMS + AUGMENT_RANDOMS
    scales = [crop.scale for crop in crops for _ in range(crop.count)]

    def of_step(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.stack([tf.constant(seed, tf.int64), step * order.num_replicas + order.replica])
        random = tf.random.stateless_uniform([batch, count * randoms], key)
        return order.instance_ids(step), tf.reshape(random, [batch, count, randoms])

    def windows_of(random: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        windows = [
            random_window(random[:, v, :CROP_RANDOMS], height, width, scale)
            for v, scale in enumerate(scales)
        ]
        return tf.stack(windows, axis=1)

    def groups(views: tuple[tf.Tensor, ...], ids: tf.Tensor, weights: tf.Tensor, random: tf.Tensor):
        views = [_image_after_image(v) for v in _replace(views, weights)]
        if augment:
            return tuple(views), ids, weights
        random = tf.split(random[:, :, CROP_RANDOMS:], [crop.count for crop in crops], axis=1)
        return tuple((v, _image_after_image(r)) for v, r in zip(views, random)), ids, weights

    def augmented(views: list[tf.Tensor], random: tf.Tensor) -> tuple[tf.Tensor, ...]:
        numbers = iter(tf.unstack(random[:, CROP_RANDOMS:], count))
        return tuple(
            tf.stack([augment(view, next(numbers)) for view in tf.unstack(group)])
            for group in views
        )

    steps = tf.data.Dataset.range(start_step, stop_step)
    drawn = steps.map(of_step, num_parallel_calls=tf.data.AUTOTUNE)
    batches = cut_views(drawn, source, windows_of, crops, broken, augmented if augment else None)
    return batches.map(groups, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


@tf.autograph.experimental.do_not_convert
def labelled_batches(
    source: Source,
    order: SlidingWindow,
    *,
    crop: Crop,
    seed: int,
    start_step: int,
    stop_step: int,
    broken: BrokenImages,
    normalisation: Normalisation = IMAGENET,
) -> tf.data.Dataset:
    """Crop images at random and give their labels, for a classifier beside the network.

    Args:
      source: labelled images.
      order: the images that each step visits.
      crop: kind of view of each image.
      seed: seed of the crops.
      start_step: first step.
      stop_step: one past the last step.
      broken: list of images that cannot be decoded, to add to; they get weight 0.
      normalisation: mean and deviation of each channel.

    Returns:
      Dataset of (normalised views float32 [b, size, size, C], labels int64 [b],
      weights float32 [b]).
    """
    labels = tf.constant(source.labels, tf.int64)
    batches = pretraining_batches(
        source,
        order,
        crops=[crop],
        seed=seed,
        start_step=start_step,
        stop_step=stop_step,
        broken=broken,
    )
    return batches.map(
        lambda groups, ids, weights: (
            normalise(groups[0][0], normalisation),
            tf.gather(labels, ids),
            weights,
        )
    )


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
    source: Source,
    instance_ids,
    *,
    image_size: int,
    crop_fraction: float,
    batch_size: int = 256,
    broken: BrokenImages | None = None,
) -> tf.data.Dataset:
    """Cut central views of some instances, in the order given.

    Args:
      source: the images.
      instance_ids: integer [n].
      image_size: side of a view in pixels.
      crop_fraction: side of the centred square as a share of the short side, in (0, 1].
      batch_size: images a batch; the last batch may be smaller.
      broken: list of images that cannot be decoded, to add to; their views are black.

    Returns:
      Dataset of [b, size, size, C], uint8 or uint16 as the images.
    """

    def windows_of(_, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return central_window(height, width, crop_fraction)[:, None]

    ids = tf.data.Dataset.from_tensor_slices(tf.cast(instance_ids, tf.int64)).batch(batch_size)
    no_random = ids.map(lambda ids: (ids, tf.zeros([tf.size(ids), 1])))
    batches = cut_views(no_random, source, windows_of, [Crop(image_size)], broken)
    return batches.map(lambda views, *_: views[0][:, 0]).prefetch(tf.data.AUTOTUNE)


@contextlib.contextmanager
def naming_unreadable(source: Source, instance_ids: Iterable[int]) -> Iterator[None]:
    """Name the image behind an error of TensorFlow in the block, if it is one of these.

    Args:
      source: the images.
      instance_ids: ids of the images that the block reads.

    Raises:
      ValueError: for an image that cannot be read.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise  # memory, whatever the images are
    except tf.errors.OpError as error:
        raise (find_unreadable(source, instance_ids) or error) from error


def find_unreadable(source: Source, instance_ids: Iterable[int]) -> ValueError | None:
    """Find an unreadable image, one by one: TensorFlow does not always name it.

    Args:
      source: the images.
      instance_ids: ids of the images to try.

    Returns:
      An error that names the first such image, or None.
    """
    for instance_id in instance_ids:
        try:
            source.read(tf.constant([instance_id], tf.int64))
        except (tf.errors.OpError, OSError, ValueError) as error:
            return ValueError(
                f"expected an image in {source.path(instance_id)!r}, got one that cannot be read "
                f"({_first_line(error)}): remove or replace it"
            )
    return None


def _first_line(error: Exception) -> str:
    """The first line of an error; "?" for characters of a file's name without a picture."""
    first, *_ = str(error).splitlines() or [type(error).__name__]
    return "".join(c if c.isprintable() else "?" for c in first)


def _replace(views: tuple[tf.Tensor, ...], weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Replace views [b, ...] of weight 0 by those of weight 1, in turn; without any, keep them."""

    def chosen() -> tuple[tf.Tensor, ...]:
        fine = tf.where(weights > 0)[:, 0]
        rank = tf.cumsum(tf.cast(weights == 0, tf.int64), exclusive=True)
        other = tf.gather(fine, rank % tf.size(fine, tf.int64))
        source = tf.where(weights > 0, tf.range(tf.size(weights, tf.int64)), other)
        return tuple(tf.gather(v, source) for v in views)

    some = tf.reduce_any(weights > 0) & tf.reduce_any(weights == 0)
    return tf.cond(some, chosen, lambda: views)


def _image_after_image(x: tf.Tensor) -> tf.Tensor:
    """[b, n, ...] -> [b n, ...]."""
    return tf.reshape(x, [x.shape[0] * x.shape[1], *x.shape[2:]])
