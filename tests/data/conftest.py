"""Fixtures that several tests of data share."""

import numpy as np
import pytest
from PIL import Image

from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.folder import open_folder
from tests.data.batches import COUNT, natural_image


@pytest.fixture(scope="module", autouse=True)
def _same_weights_every_time():
    """Seed once a module: there are no weights here, and TensorFlow makes every traced function
    ready anew after a seed, which takes longer than most tests of what they compute.
    """
    import tf_keras as keras  # only now that TensorFlow was imported quietly

    keras.utils.set_random_seed(0)


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


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A place for data sets with `tiny_pictures` in ArrayRecord files, three a split."""
    from tests.data.sources.tfds_sets import TinyPictures, prepare  # slow to import

    root = tmp_path_factory.mktemp("datasets")
    prepare(TinyPictures(data_dir=root, file_format="array_record"), num_shards=3)
    return root


@pytest.fixture
def usual_place(monkeypatch):
    """Sets where data sets are looked for by name, as TFDS_DATA_DIR does before the import."""
    import tensorflow_datasets as tfds  # slow to import

    return lambda root: monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(root))
