"""Find the run that a backbone comes from, and its images."""

import pathlib
from typing import Protocol

from pic_tf.runs.run_folder import FLAGS_FILE
from pic_tf.settings import flag_files
from pic_tf.settings.config import Config


def run_behind(model: str) -> Config:
    """Read the configuration of the run whose images stand for those that no flag names.

    Args:
      model: folder of the run, or of an export in it.

    Returns:
      The configuration.

    Raises:
      ValueError: where there is no run.
    """
    folder = pathlib.Path(model)
    folders = [folder, folder.parent] if (folder / "saved_model.pb").is_file() else [folder]
    for candidate in folders:
        if (candidate / FLAGS_FILE).is_file():
            return flag_files.from_flagfile(str(candidate / FLAGS_FILE))
    raise ValueError(
        f"expected images in --dataset, got '', and {model!r} is no run whose images could be "
        "taken: name them"
    )


class NamesImages(Protocol):
    """Settings that name a backbone and images."""

    model: str
    dataset: str
    eval_dataset: str
    split_folders: str


def images_of(settings: NamesImages) -> tuple[str, str, str]:
    """Name the images of some settings: theirs, or those of the run where `dataset` is "".

    Args:
      settings: the settings.

    Returns:
      (dataset, eval_dataset, split_folders), as of `open_dataset`.

    Raises:
      ValueError: where there is no run.
    """
    if settings.dataset:
        return settings.dataset, settings.eval_dataset, settings.split_folders
    of_run = run_behind(settings.model)
    return of_run.dataset, settings.eval_dataset or of_run.eval_dataset, of_run.split_folders
