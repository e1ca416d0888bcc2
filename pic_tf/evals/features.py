"""Extract features of a data set, from a backbone or as raw pixels, and keep them on disk."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from pic_tf.data.augment import normalise
from pic_tf.data.channel_statistics import measure_normalisation
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import IMAGENET, Normalisation, unit_range
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.folder import FolderSource
from pic_tf.data.sources.joined import JoinedSource
from pic_tf.data.sources.pixel_format import RGB
from pic_tf.data.sources.source import Source
from pic_tf.files.mapped import new_array
from pic_tf.files.progress import drawing_interval
from pic_tf.files.replaced import aside, remove_partial, replaced
from pic_tf.serving.exported import Exported

_RAW_SIZE = 32  # pixels; 20,000 views of it are 245 MB


def inference(
    backbone: Callable[..., tf.Tensor], channels: int = 3
) -> Callable[[tf.Tensor], np.ndarray]:
    """Make a function from views to features, with batch normalisation in inference mode.

    Args:
      backbone: maps float32 [b, H, W, channels], normalised, and `training=False` to [b, C].
      channels: channels of the images.

    Returns:
      Function from normalised views float32 [b, H, W, channels] to float32 [b, C]; it is compiled
      once, for any b, H and W.
    """
    views = tf.TensorSpec([None, None, None, channels], tf.float32)

    @tf.function(input_signature=[views])
    def features(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(backbone(images, training=False), tf.float32)

    return lambda images: features(images).numpy()


def raw_pixels(batches: tf.data.Dataset, normalisation: Normalisation = IMAGENET) -> np.ndarray:
    """Take normalised pixels as features: a baseline for every backbone.

    Args:
      batches: levels [b, H, W, c]; larger views are shrunk to 32 x 32, or memory would not do.
      normalisation: mean and deviation of each channel.

    Returns:
      float32 [n, c min(H, 32) min(W, 32)].
    """
    return np.concatenate([_pixels(images, normalisation) for images in batches])


def cached_features(
    exported: Exported | None,
    source: Source,
    *,
    image_size: int,
    eval_crop: float,
    max_broken: float,
    cache: pathlib.Path,
    pixels: Normalisation = IMAGENET,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute features of the central views of all images, or take them from the cache.

    Args:
      exported: the backbone; None for raw pixels.
      source: N images.
      image_size: side of a view in pixels.
      eval_crop: side of the centred square, share of the short side.
      max_broken: share of the images that may be broken.
      cache: folder for features, under a key of the backbone's weights, the images and the views.
      pixels: mean and deviation of each channel, of raw pixels.

    Returns:
      (float32 [N, C] mapped from a file, bool [N] true for images that could be decoded; the
      features of others mean nothing).

    Raises:
      ValueError: for an image that cannot be read, too many that cannot be decoded, or features
        that are not finite.
      OSError: where the cache cannot be written.
    """
    key = {
        "backbone": exported.fingerprint if exported else "raw pixels",
        "images": source.fingerprint(),
        "files": state_of_files(source),
        "image_size": image_size,
        "eval_crop": eval_crop,
        "tensorflow": tf.__version__,
    } | ({} if exported or pixels == IMAGENET else {"pixels": pixels})
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
        with naming_unreadable(source, ids):
            parts = map(image_features(exported, pixels), batches)
            parts = (check_finite(part, source.name) for part in parts)
            _write_rows(file, parts, len(source), f"features of {source.name}")
        broken.report(max_broken)
        with replaced(decodable, "wb") as f:
            np.save(f, broken.decodable(ids))
        found = np.load(file, mmap_mode="r", allow_pickle=False), broken.decodable(ids)
    else:
        known = BrokenImages(source)
        known.reasons = {int(i): "found before" for i in np.flatnonzero(~found[1])}
        known.check(max_broken)
    return found


def check_finite(features: np.ndarray, name: str) -> np.ndarray:
    """Give features [n, C] of images of that name back; raise ValueError unless all are finite."""
    if not (finite := np.isfinite(features).all(1)).all():
        raise ValueError(
            f"expected finite features of {name}, got others of {np.sum(~finite):,} of "
            f"{len(finite):,} images: look for weights of the backbone that are not finite"
        )
    return features


def image_features(
    exported: Exported | None, pixels: Normalisation = IMAGENET
) -> Callable[[tf.Tensor], np.ndarray]:
    """Make a function from levels [b, H, W, n] of images to their features float32 [b, C].

    Args:
      exported: the backbone; None for raw pixels.
      pixels: mean and deviation of each channel, of raw pixels.
    """
    if exported:
        return _compiled(exported.network(), unit_range)
    return functools.partial(_pixels, normalisation=pixels)


def normalisation_of_pixels(
    exported: Exported | None, train: Source, image_size: int, max_broken: float
) -> Normalisation:
    """Normalise raw pixels by ImageNet's figures for RGB of 8 bits, else by those of the images.

    Args:
      exported: the backbone; None for raw pixels, which alone are normalised so.
      train: training images.
      image_size, max_broken: as of `measure_normalisation`.
    """
    if exported or train.pixels == RGB:
        return IMAGENET
    return measure_normalisation(train, image_size, max_broken)


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


def _pixels(images: tf.Tensor, normalisation: Normalisation) -> np.ndarray:
    images = normalise(images, normalisation)
    if max(images.shape[1:3]) > _RAW_SIZE:
        images = tf.image.resize(images, [_RAW_SIZE, _RAW_SIZE], antialias=True)
    return images.numpy().reshape(len(images), -1)


def _compiled(
    network: Callable[..., tf.Tensor], prepared: Callable[[tf.Tensor], tf.Tensor]
) -> Callable[[tf.Tensor], np.ndarray]:
    """Compile a function from levels of images to float32 features of the prepared images."""

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
                rows = new_array(own, (count, part.shape[1]))
            rows[first : first + len(part)] = part
            first += len(part)
            bar.update(len(part))
        rows.flush()  # to the disk


def state_of_files(source: Source) -> str:
    """Hash sizes and times of a folder's files, whose fingerprint is of names alone, or of arrays'.

    Other sources know their contents.
    """
    if isinstance(source, JoinedSource):
        return " ".join(map(state_of_files, source.parts))
    if isinstance(source, FolderSource):
        files = map(source.path, range(len(source)))
    elif isinstance(source, ArraySource) and source.file:
        files = [source.file]
    else:
        return ""
    digest = hashlib.sha256()
    for path in files:
        try:
            status = os.stat(path)
        except OSError as error:
            raise ValueError(
                f"expected a file at {str(path)!r}, got one that cannot be read "
                f"({error.strerror}): remove or replace it"
            ) from error
        digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()
