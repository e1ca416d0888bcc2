"""Settings of every test."""

import os
import pathlib
import tarfile

import pytest

from pic_tf.files.quiet import import_tensorflow

import_tensorflow()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: they are the longest, and at the end they would keep one process waiting for another."""
    items.sort(key=lambda item: item.path.parent != pathlib.Path(__file__).parent)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    import tf_keras as keras  # only now that TensorFlow was imported quietly

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def real_photographs(tmp_path_factory) -> pathlib.Path:
    """A folder of real JPEG photographs, unpacked from $PIC_TF_TEST_DATA/imagenet_samples.tar."""
    archive = pathlib.Path(os.environ.get("PIC_TF_TEST_DATA", "")) / "imagenet_samples.tar"
    if not archive.is_file():
        pytest.skip("needs real photographs: set PIC_TF_TEST_DATA to a folder with imagenet_samples.tar")
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "imagenet_samples"
