"""Extract features of a data set, from a backbone or as raw pixels, and keep them on disk."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from pic_tf.data.augment import normalise
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import evaluation_batches, find_unreadable
from pic_tf.data.sources.folder import FolderSource
from pic_tf.data.sources.joined import JoinedSource
from pic_tf.data.sources.source import Source
from pic_tf.files.progress import drawing_interval
from pic_tf.files.replaced import aside, remove_partial, replaced
from pic_tf.serving.exported import Exported

_RAW_SIZE = 32  # pixels; 20,000 views of it are 245 MB


def inference(backbone: Callable[..., tf.Tensor]) -> Callable[[tf.Tensor], np.ndarray]:
    """Make a function from views to features, with batch normalisation in inference mode.

    Args:
      backbone: maps float32 [b, H, W, 3], normalised, and `training=False` to [b, C].

    Returns:
      Function from normalised views float32 [b, H, W, 3] to float32 [b, C]; it is compiled once,
      for any b, H and W.
    """
    views = tf.TensorSpec([None, None, None, 3], tf.float32)

    @tf.function(input_signature=[views])
    def features(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(backbone(images, training=False), tf.float32)

    return lambda images: features(images).numpy()


def raw_pixels(batches: tf.data.Dataset) -> np.ndarray:
    """Take normalised pixels as features: a baseline for every backbone.

    Args:
      batches: uint8 [b, H, W, 3]; larger views are shrunk to 32 x 32, or memory would not do.

    Returns:
      float32 [n, 3 min(H, 32) min(W, 32)].
    """
    return np.concatenate([_pixels(images) for images in batches])


def cached_features(
    exported: Exported | None,
    source: Source,
    *,
    image_size: int,
    eval_crop: float,
    max_broken: float,
    cache: pathlib.Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute features of the central views of all images, or take them from the cache.

    Args:
      exported: the backbone; None for raw pixels.
      source: N images.
      image_size: side of a view in pixels.
      eval_crop: side of the centred square, share of the short side.
      max_broken: share of the images that may be broken.
      cache: folder for features, under a key of the backbone's weights, the images and the views.

    Returns:
      (float32 [N, C] mapped from a file, bool [N] true for images that could be decoded; the
      features of others mean nothing).

    Raises:
      ValueError: for an image that cannot be read, or too many that cannot be decoded.
      OSError: where the cache cannot be written.
    """
    key = {
        "backbone": exported.fingerprint if exported else "raw pixels",
        "images": source.fingerprint(),
        "files": state_of_files(source),
        "image_size": image_size,
        "eval_crop": eval_crop,
        "tensorflow": tf.__version__,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file, decodable = cache / f"{name}.npy", cache / f"{name}.decoded.npy"
    found = _complete(file, decodable, len(source))
    if found is None:
        cache.mkdir(parents=True, exist_ok=True)
        remove_partial(cache)
        broken, ids = BrokenImages(source), np.arange(len(source))
        batches = evaluation_batches(
            source, ids, image_size=image_size, crop_fraction=eval_crop, broken=broken
        )
        try:
            parts = map(image_features(exported), batches)
            _write_rows(file, parts, len(source), f"features of {source.name}")
        except tf.errors.OpError as error:
            raise (find_unreadable(source, ids) or error) from error
        broken.report(max_broken)
        with replaced(decodable, "wb") as f:
            np.save(f, broken.decodable(ids))
        found = np.load(file, mmap_mode="r", allow_pickle=False), broken.decodable(ids)
    return found


def image_features(exported: Exported | None) -> Callable[[tf.Tensor], np.ndarray]:
    """Make a function from images uint8 [b, H, W, 3] to their features float32 [b, C].

    Args:
      exported: the backbone; None for raw pixels.
    """
    return _compiled(exported.network(), _unit_range) if exported else _pixels


def _complete(
    file: pathlib.Path, decodable: pathlib.Path, count: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Load features from the cache; None where they are missing, or not all there."""
    try:
        features = np.load(file, mmap_mode="r", allow_pickle=False)
        whole = np.load(decodable, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return (features, whole) if len(features) == len(whole) == count else None


def _pixels(images: tf.Tensor) -> np.ndarray:
    images = normalise(images)
    if max(images.shape[1:3]) > _RAW_SIZE:
        images = tf.image.resize(images, [_RAW_SIZE, _RAW_SIZE], antialias=True)
    return images.numpy().reshape(len(images), -1)


def _unit_range(images: tf.Tensor) -> tf.Tensor:
    """Scale levels to [0, 1], the input of an export."""
    return tf.cast(images, tf.float32) / 255


def _compiled(
    network: Callable[..., tf.Tensor], prepared: Callable[[tf.Tensor], tf.Tensor]
) -> Callable[[tf.Tensor], np.ndarray]:
    """Compile a function from uint8 images to float32 features of the prepared images."""

    @tf.function(reduce_retracing=True)
    def features(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(prepared(images), training=False), tf.float32)

    return lambda images: features(images).numpy()


def _write_rows(path: pathlib.Path, parts: Iterable[np.ndarray], count: int, title: str) -> None:
    """Write an .npy file of `count` rows that come in parts; only one part is in memory."""
    first, rows = 0, None
    bar = tqdm(total=count, desc=title, unit=" images", mininterval=drawing_interval())
    with aside(path) as own, bar:
        for part in parts:
            if rows is None:
                rows = np.lib.format.open_memmap(own, "w+", np.float32, (count, part.shape[1]))
            rows[first : first + len(part)] = part
            first += len(part)
            bar.update(len(part))
        rows.flush()  # to the disk


def state_of_files(source: Source) -> str:
    """Hash sizes and times of a folder's files, as its fingerprint is of names alone.

    Other sources know their contents.
    """
    if isinstance(source, JoinedSource):
        return " ".join(map(state_of_files, source.parts))
    if not isinstance(source, FolderSource):
        return ""
    digest = hashlib.sha256()
    for i in range(len(source)):
        status = os.stat(source.path(i))
        digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()
