"""Cut views of the images of each batch: read, decode, crop, resize."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pic_tf.data.crops import Crop, central_view, crop_arrays, crop_encoded
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.decode.decoder import decoder
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.source import Source

_READ_AHEAD = 4  # batches read at once
_DECODED_AHEAD = 2  # batches decoded at once, each by all cores

Change = Callable[[list[tf.Tensor], tf.Tensor], tuple[tf.Tensor, ...]]


def cut_views(
    batches: tf.data.Dataset,
    source: Source,
    windows_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    crops: Sequence[Crop],
    broken: BrokenImages | None,
    change: Change | None = None,
) -> tf.data.Dataset:
    """Cut the views of all images, a batch at a time.

    Python is called as if it had no state: a deterministic run would otherwise do one batch after
    the other.

    Args:
      batches: data set of (ids int64 [b], random float32 [b, ...]).
      source: the images.
      windows_of: maps (random, height int32 [b], width int32 [b]) to windows int32 [b, V, 4].
      crops: kinds of views of each image, V views in all.
      broken: list of images that cannot be decoded, to add to; None for a list of its own.
      change: maps the views and the random numbers of one image to other views.

    Returns:
      Dataset of (views, ids, weights float32 [b], random). Each of `crops` gives views
      [b, n, size, size, C], uint8 or uint16 as the images; a broken image has weight 0.
    """
    broken, pixels = BrokenImages(source) if broken is None else broken, source.pixels

    def cut_arrays(images: tf.Tensor, ids: tf.Tensor, random: tf.Tensor):
        count, height, width = (tf.shape(images)[i] for i in range(3))
        windows = windows_of(random, tf.fill([count], height), tf.fill([count], width))
        windows = tf.split(windows, [crop.count for crop in crops], axis=1)
        views = []
        for crop, of_crop in zip(crops, windows):
            each = tf.unstack(of_crop, crop.count, axis=1)
            views.append(tf.stack([crop_arrays(images, w, crop.size) for w in each], axis=1))
        return tuple(views), ids, tf.ones_like(ids, tf.float32), random

    def with_windows(encoded: tf.Tensor, ids: tf.Tensor, random: tf.Tensor):
        known = tf.numpy_function(broken.known, [ids], tf.bool, stateful=False)
        known = tf.ensure_shape(known, ids.shape)
        encoded = tf.where(known, decoder(pixels).black, encoded)
        sizes = decoder(pixels).sizes(encoded)
        windows = windows_of(random, *tf.unstack(tf.maximum(sizes, 1), axis=1))
        return encoded, sizes, windows, ids, tf.cast(~known, tf.float32), random

    def change_each(views, ids: tf.Tensor, weights: tf.Tensor, random: tf.Tensor):
        images = tf.data.Dataset.from_tensor_slices((views, random))
        changed = images.map(change, num_parallel_calls=os.cpu_count())
        batch = changed.batch(ids.shape[0], drop_remainder=True)
        return batch.map(lambda *views: (views, ids, weights, random))

    records = batches.map(
        lambda ids, random: (source.read(ids), ids, random), num_parallel_calls=_READ_AHEAD
    )
    if records.element_spec[0].dtype != tf.string:
        cut = records.map(cut_arrays, num_parallel_calls=tf.data.AUTOTUNE)
        return cut.flat_map(change_each) if change else cut
    return records.map(with_windows, num_parallel_calls=_READ_AHEAD).interleave(
        lambda *batch: _decode(
            *batch, crops, pixels, broken, change or (lambda views, _: tuple(views))
        ),
        cycle_length=_DECODED_AHEAD,
        num_parallel_calls=_DECODED_AHEAD,
        deterministic=True,
    )


def _decode(
    encoded: tf.Tensor,
    sizes: tf.Tensor,
    windows: tf.Tensor,
    ids: tf.Tensor,
    weights: tf.Tensor,
    random: tf.Tensor,
    crops: Sequence[Crop],
    pixels: PixelFormat,
    broken: BrokenImages,
    change: Change,
) -> tf.data.Dataset:
    """Decode one batch, as a data set: all images at once, or, if that fails, one by one."""
    cores, number = os.cpu_count(), tf.size(ids, tf.int64)
    harmless = decoder(pixels).harmless

    @tf.function(autograph=False)  # traced once for both ways
    def cut(encoded: tf.Tensor, size: tf.Tensor, windows: tf.Tensor, random: tf.Tensor):
        return change(crop_encoded(encoded, size, windows, crops, pixels), random)

    def cut_or_black(encoded: tf.Tensor, *rest: tf.Tensor) -> tf.data.Dataset:
        one = tf.data.Dataset.from_tensors((encoded, *rest))
        good = one.map(
            lambda encoded, *rest: (cut(harmless(encoded[None])[0], *rest), True)
        ).ignore_errors()
        views = good.element_spec[0]
        black = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), views)
        return good.concatenate(tf.data.Dataset.from_tensors((black, False))).take(1)

    def note(fine: np.ndarray, ids: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        broken.add(ids[~fine], encoded[~fine])
        return fine.astype("float32")

    def with_weights(views: tuple[tf.Tensor, ...], fine: tf.Tensor):
        noted = tf.numpy_function(note, [fine, ids, encoded], tf.float32, stateful=False)
        return views, ids, weights * tf.ensure_shape(noted, weights.shape), random

    def with_length(views: tuple[tf.Tensor, ...], *rest: tf.Tensor):
        return tuple(tf.ensure_shape(v, [*ids.shape, *v.shape[1:]]) for v in views), *rest

    batch = tf.data.Dataset.from_tensors((encoded, sizes, windows, random))
    checked = batch.map(lambda encoded, *rest: (harmless(encoded), *rest)).unbatch()
    cut_together = checked.map(cut, num_parallel_calls=cores)
    # Without its remainder: after an error that would be a batch as well, of the images behind the
    # broken one.
    together = cut_together.batch(number, drop_remainder=True).ignore_errors()
    each = batch.unbatch().interleave(
        cut_or_black, cycle_length=cores, num_parallel_calls=cores, deterministic=True
    )
    batches = together.map(lambda *views: (views, ids, weights, random))
    batches = batches.concatenate(each.batch(number).map(with_weights))
    return batches.take(1).map(with_length)


@tf.autograph.experimental.do_not_convert
def central_views(
    encoded: tf.Tensor, fraction: float, size: int, pixels: PixelFormat = RGB
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut the central views of encoded images, without any Python; one bad image spoils no other.

    Args:
      encoded: string [b], bytes of images.
      fraction: as of `central_view`.
      size: as of `central_view`.
      pixels: as of `central_view`.

    Returns:
      (views [b, size, size, C], black for an image that cannot be decoded; bool [b], True
      for one that can).
    """
    view = tf.TensorSpec([size, size, pixels.channels], pixels.dtype)
    specs = view, tf.TensorSpec([], tf.bool)

    @tf.function(autograph=False)  # traced once for both ways
    def cut(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return central_view(image, fraction, size, pixels), tf.constant(True)

    def cut_or_black(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        good = tf.data.Dataset.from_tensors(image).map(cut).ignore_errors()
        black = tf.data.Dataset.from_tensors((tf.zeros(view.shape, view.dtype), False))
        return good.concatenate(black).take(1).get_single_element()

    # All at once, or, where that fails, one by one.
    batch = tf.data.Dataset.from_tensors(encoded)
    whole = batch.map(lambda images: tf.map_fn(cut, images, fn_output_signature=specs))
    each = batch.map(lambda images: tf.map_fn(cut_or_black, images, fn_output_signature=specs))
    return whole.ignore_errors().concatenate(each).take(1).get_single_element()
