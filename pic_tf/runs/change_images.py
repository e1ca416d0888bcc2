"""Carry a run over to other images: rows go with the names of their images."""

import dataclasses
import json
import pathlib

import numpy as np
from tqdm import tqdm

from pic_tf.data.sources.folder import FolderSource
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.packed import PackedSource
from pic_tf.data.sources.source import Source
from pic_tf.files.progress import drawing_interval
from pic_tf.instances.first_weights import INITIAL_STDDEV, initial_rows
from pic_tf.instances.paging.convert import fill_untouched
from pic_tf.instances.rows import RowSnapshot
from pic_tf.runs import checkpoint_files, new_run, open_data, run_folder, state
from pic_tf.settings import check, defaults, flag_files, quantities
from pic_tf.settings.config import Config

_PART = 65536  # rows that are copied at once
_METRICS = ("metrics/", "replicas/metrics/")  # what an epoch has gathered so far


@dataclasses.dataclass(frozen=True)
class Changed:
    """Result of a change of images.

    Attributes:
      kept: images whose rows went with them.
      added: images that are new.
      retired: images that are gone.
      step: updates applied so far.
      config: of the new run.
    """

    kept: int
    added: int
    retired: int
    step: int
    config: Config


def change(run: str, dataset: str, output: str, old_dataset: str = "", epochs: int = 0) -> Changed:
    """Write the checkpoint that the new run begins with.

    Args:
      run: output folder of the old run.
      dataset: the new images, as `pic_tf.train` names them.
      output: output folder of the new run, which is not there yet.
      old_dataset: where the old images are now; "" for where they were. Of a folder the names are
        enough.
      epochs: of the new run, counted in new images; 0 for as many as the old one has.

    Returns:
      Numbers of the images that were kept, added and retired, and the new run's settings.

    Raises:
      ValueError: where the run has no checkpoint with all rows, where its images are not those it
        was trained on, have no names, or share none with the new ones, where its settings do not
        fit these, or no steps are left.
      OSError: where the checkpoint cannot be written.
    """
    path, old = _checkpoint_to_change(run)
    step = checkpoint_files.step_of(path)
    before, _ = open_dataset(
        old_dataset or old.dataset,
        old.eval_dataset,
        old.max_broken,
        old.split_folders,
        old.pixels,
    )
    config, after = _open_new_run(old, dataset, output, epochs or old.epochs)
    old_ids = _old_ids(before, after)
    _check_images(path, before)
    kept = np.count_nonzero(old_ids >= 0)
    if not kept:
        raise ValueError(
            f"expected images of the run in {after.name!r}, got none with the name of one, such as "
            f"{_names(before)[0]!r}: names are paths below the folder"
        )
    _check_fit(old, config, step, before, after)
    trained = state.read_state(path)
    variables, rows = trained.variables, trained.rows
    variables |= {n: np.zeros_like(v) for n, v in variables.items() if n.startswith(_METRICS)}
    texts = {name: checkpoint_files.read_text(path, name) for name in run_folder.TEXTS}
    texts[run_folder.FLAGS_FILE] = flag_files.to_flagfile(config)
    texts[run_folder.IMAGES_FILE] = json.dumps(open_data.identity(after))
    with new_run.new_tables(output, config, rows.weights.shape[1]) as tables:
        fill(tables, rows, old_ids, config.seed, "rows")
        if config.num_negatives == len(after):  # K = N: no row rests, slot i is instance i
            variables[state.HEAD] = np.array(0)
            tables["stamp"][:] = step
            ring = np.arange(len(after))
        else:
            ring = renumbered(rows.ring, old_ids, len(before))
        new_run.write(output, step, variables, tables | {"ring": ring}, texts)
    return Changed(kept, len(after) - kept, len(before) - kept, step, config)


def _checkpoint_to_change(run: str) -> tuple[pathlib.Path, Config]:
    """Find the newest good checkpoint of a run with all its rows, and the settings of the run."""
    path, _ = checkpoint_files.newest(pathlib.Path(run) / run_folder.CHECKPOINTS)
    if path is None:
        raise ValueError(f"expected a run with a checkpoint at {run!r}, got none")
    if checkpoint_files.has_table(path, state.INSTANCES):
        raise ValueError(
            f"expected a checkpoint with the rows of all images in {run!r}, got one whose other "
            "rows are on disk: bring them together first, with tools/collect_rows.py"
        )
    config = flag_files.from_flagfile(str(path / run_folder.FLAGS_FILE))
    check.check(config)
    if not config.has_rows:
        raise ValueError(
            f"expected a run with a row for each image in {run!r}, got one of "
            f"--method={config.method}: its weights know no images, so begin a new one"
        )
    return path, config


def _old_ids(before: Source, after: Source) -> np.ndarray:
    """List the old id of each new image, int64 [N], -1 where its name is new."""
    names_before, names_after = _names(before), _names(after)
    number = {name: i for i, name in enumerate(names_before)}
    return np.array([number.get(name, -1) for name in names_after], np.int64)


def _check_images(path: pathlib.Path, before: Source) -> None:
    """Refuse other images than those of the checkpoint's run."""
    images = json.loads(checkpoint_files.read_text(path, run_folder.IMAGES_FILE))
    if open_data.identity(before) != images:
        raise ValueError(
            f"expected the images that the run was trained on in {before.name!r}, got others: "
            "keep them as they were and make the new folder beside them (cp -al takes no space), "
            "or name them with --old_dataset"
        )


def _check_fit(old: Config, config: Config, step: int, before: Source, after: Source) -> None:
    """Refuse settings that leave no step, or with which rows or probe cannot go on."""
    if step >= quantities.total_steps(config):
        raise ValueError(
            f"expected --epochs of more than {step // quantities.steps_per_epoch(config)}, for "
            f"that many of the new images lie behind step {step:,}, got {config.epochs}"
        )
    full = old.num_negatives == old.num_instances
    if full != (config.num_negatives == len(after)):
        raise ValueError(
            f"expected more images than the {old.num_negatives:,} negatives, got as many: "
            "take away fewer"
        )
    probe_on_images = old.probe_batch_size and not old.labelled_dataset
    if probe_on_images and before.class_names != after.class_names:
        raise ValueError(
            f"expected the {len(before.class_names)} classes of the run, to which its linear probe "
            f"belongs, got others in {after.name!r}: give all images one of these"
        )


def fill(
    tables: dict[str, np.ndarray],
    rows: RowSnapshot,
    old_ids: np.ndarray,
    seed: int,
    progress: str = "",
) -> None:
    """Give each image its old row; untouched rows begin with the weights of their new id.

    Args:
      tables: weights, momentum and stamp, [N, ...], zeros.
      rows: of all old images.
      old_ids: int64 [N], the old id of each image, -1 for a new one.
      seed: of first weights.
      progress: name of a progress bar; "" for none.
    """
    dim = rows.weights.shape[1]
    shown = {"desc": progress, "disable": not progress, "mininterval": drawing_interval()}
    with tqdm(total=len(old_ids), **shown) as bar:
        for first in range(0, len(old_ids), _PART):
            old = old_ids[first : first + _PART]
            known = np.flatnonzero(old >= 0)
            for name, table in tables.items():
                table[first + known] = getattr(rows, name)[old[known]]
            bar.update(len(old))
    fill_untouched(tables, lambda ids: initial_rows(ids, dim, INITIAL_STDDEV, seed))


def renumbered(ring: np.ndarray, old_ids: np.ndarray, num_before: int) -> np.ndarray:
    """Give the ring its new ids, without those of retired images.

    Args:
      ring: int64 [slots], old ids, -1 for an empty slot.
      old_ids: int64 [N], the old id of each image, -1 for a new one.
      num_before: how many old images there were.

    Returns:
      int64 [slots], -1 for an empty slot.
    """
    new_ids = np.full(num_before, -1)
    known = np.flatnonzero(old_ids >= 0)
    new_ids[old_ids[known]] = known
    return np.where(ring >= 0, new_ids[ring], -1)


def _open_new_run(old: Config, dataset: str, output: str, epochs: int) -> tuple[Config, Source]:
    """Open the new images, with the settings of the old run; sizes of all images grow along."""
    config = dataclasses.replace(old, dataset=dataset, output_dir=output, epochs=epochs)
    after = open_data.open_images(config).train
    count = len(after)

    def changed(size: int) -> int:
        return count if size == old.num_instances else size

    config = dataclasses.replace(
        config,
        num_instances=count,
        window_size=changed(old.window_size),
        window_stride=changed(old.window_stride),
        num_negatives=changed(old.num_negatives),
    )
    try:
        return defaults.resolve(config, count), after
    except ValueError as error:
        raise ValueError(f"{error} (with the settings of the run and {count:,} images)") from error


def _names(source: Source) -> tuple[str, ...]:
    """List the names of the images, all different."""
    match source:
        case FolderSource():
            names = source.paths
        case PackedSource():
            names = source.names
        case _:
            raise ValueError(
                f"expected images with names, from a folder or tools/pack.py, got {source.name!r}: "
                "pack it first"
            )
    if len(set(names)) < len(names):
        raise ValueError(
            f"expected different names in {source.name!r}, got {len(names) - len(set(names)):,} "
            "that come again: pack it from a folder"
        )
    return names
