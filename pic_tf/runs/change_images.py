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
      What became of the images.

    Raises:
      ValueError: where the run has no checkpoint with all rows, where its images are not those it
        was trained on, have no names, or share none with the new ones, where its settings do not
        fit these, or no steps are left.
      OSError: where the checkpoint cannot be written.
    """
    found, _ = checkpoint_files.newest(pathlib.Path(run) / run_folder.CHECKPOINTS)
    if found is None:
        raise ValueError(f"expected a run with a checkpoint at {run!r}, got none")
    if checkpoint_files.has_table(found, state.INSTANCES):
        raise ValueError(
            f"expected a checkpoint with the rows of all images in {run!r}, got one whose other "
            "rows are on disk: bring them together first, with tools/collect_rows.py"
        )
    old, step = (
        flag_files.from_flagfile(str(found / run_folder.FLAGS_FILE)),
        checkpoint_files.step_of(found),
    )
    check.check(old)
    before, _ = open_dataset(old_dataset or old.dataset, old.eval_dataset, old.max_broken)
    config, after = _open_new_run(old, dataset, output, epochs or old.epochs)
    names_before, names_after = _names(before), _names(after)
    if open_data.identity(before) != json.loads(
        checkpoint_files.read_text(found, run_folder.IMAGES_FILE)
    ):
        raise ValueError(
            f"expected the images that the run was trained on in {before.name!r}, got others: keep "
            "them as they were and make the new folder beside them (cp -al takes no space), or "
            "name them with --old_dataset"
        )
    number = {name: i for i, name in enumerate(names_before)}
    old_ids = np.array([number.get(name, -1) for name in names_after], np.int64)
    kept = np.count_nonzero(old_ids >= 0)
    if not kept:
        raise ValueError(
            f"expected images of the run in {after.name!r}, got none with the name of one, such as "
            f"{names_before[0]!r}: names are paths below the folder"
        )
    if step >= quantities.total_steps(config):
        raise ValueError(
            f"expected --epochs of more than {step // quantities.steps_per_epoch(config)}, for "
            f"that many of the new images lie behind step {step:,}, got {config.epochs}"
        )
    full = old.num_negatives == old.num_instances
    if full != (config.num_negatives == len(after)):
        raise ValueError(
            f"expected more images than the {old.num_negatives:,} negatives, got as many: take "
            "away fewer"
        )
    if (
        old.probe_batch_size
        and not old.labelled_dataset
        and before.class_names != after.class_names
    ):
        raise ValueError(
            f"expected the {len(before.class_names)} classes of the run, to which its linear probe "
            f"belongs, got others in {after.name!r}: give all images one of these"
        )
    variables = checkpoint_files.read_variables(found)
    rows = state.read_rows(found, int(variables[state.HEAD]))
    if full:
        variables[state.HEAD] = np.array(0)
    for name, value in variables.items():
        if name.startswith(_METRICS):
            variables[name] = np.zeros_like(value)
    texts = {name: checkpoint_files.read_text(found, name) for name in run_folder.TEXTS}
    texts |= {
        run_folder.FLAGS_FILE: flag_files.to_flagfile(config),
        run_folder.IMAGES_FILE: json.dumps(open_data.identity(after)),
    }
    with new_run.new_tables(output, config, rows.weights.shape[1]) as tables:
        fill(tables, rows, old_ids, config.seed, "rows")
        if full:  # no row rests
            tables["stamp"][:] = step
        ring = np.arange(len(after)) if full else renumbered(rows.ring, old_ids, len(before))
        new_run.write(output, step, variables, tables | {"ring": ring}, texts)
    return Changed(kept, len(after) - kept, len(before) - kept, step, config)


def fill(
    tables: dict[str, np.ndarray],
    rows: RowSnapshot,
    old_ids: np.ndarray,
    seed: int,
    progress: str = "",
) -> None:
    """Give each image the row it had before; untouched ones begin as their new id has it.

    Args:
      tables: weights, momentum and stamp, [N, ...], zeros.
      rows: of all old images.
      old_ids: int64 [N], the old id of each image, -1 for a new one.
      seed: of first weights.
      progress: what to call it on a progress bar; "" for none.
    """
    dim = rows.weights.shape[1]
    with tqdm(
        total=len(old_ids), desc=progress, disable=not progress, mininterval=drawing_interval()
    ) as bar:
        for first in range(0, len(old_ids), _PART):
            old = old_ids[first : first + _PART]
            known = np.flatnonzero(old >= 0)
            for name, table in tables.items():
                table[first + known] = getattr(rows, name)[old[known]]
            bar.update(len(old))
    fill_untouched(tables, lambda ids: initial_rows(ids, dim, INITIAL_STDDEV, seed))


def renumbered(ring: np.ndarray, old_ids: np.ndarray, num_before: int) -> np.ndarray:
    """The ring with new ids, without those that have retired.

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
    """The settings of the old run, where they were all images all of the new ones; and these, if
    they fit.
    """
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
    """Names by which the images are known, all different."""
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
