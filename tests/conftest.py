"""Settings of every test."""

import dataclasses
import os
import pathlib
import tarfile

import pytest

# There are as many processes as cores: more threads than one would wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Import TensorFlow quietly where tests run, not in the process that waits for those."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import pic_tf.files.quiet  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: they are the longest, and at the end they would keep one process waiting
    for another.
    """
    items.sort(key=lambda item: item.path.parent != pathlib.Path(__file__).parent)


def pytest_sessionfinish() -> None:
    from tests.processes import end_processes

    end_processes()


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    import tf_keras as keras  # only now that TensorFlow was imported quietly

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def shallow_networks():
    """Networks of two blocks under the name of resnet18, see `tests.short_runs.shallow`."""
    from tests.short_runs import shallow

    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)
        yield


@pytest.fixture(scope="module")
def empty_exports():
    """Runs without SavedModel and picture, see `tests.short_runs.empty_ends`."""
    from tests.short_runs import empty_ends

    with pytest.MonkeyPatch.context() as patch:
        empty_ends(patch)
        yield


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Settings of a run that was never interrupted, of a shallow network, without SavedModel and
    picture; nobody writes into its folder.
    """
    from tests.short_runs import SMALL, empty_ends, run, shallow

    settings = dataclasses.replace(SMALL, output_dir=str(tmp_path_factory.mktemp("uninterrupted")))
    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)
        empty_ends(patch)
        assert run(settings).finished
    return settings


@pytest.fixture(scope="session")
def real_photographs(tmp_path_factory) -> pathlib.Path:
    """A folder of real JPEG photographs, unpacked from $PIC_TF_TEST_DATA/imagenet_samples.tar."""
    archive = pathlib.Path(os.environ.get("PIC_TF_TEST_DATA", "")) / "imagenet_samples.tar"
    if not archive.is_file():
        pytest.skip(
            "needs real photographs: set PIC_TF_TEST_DATA to a folder with imagenet_samples.tar"
        )
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "imagenet_samples"
