"""Find the checkpoint of a run, and check that the run can go on from it."""

import json
import os
import pathlib
import sys

import tensorflow as tf

from pic_tf.data.sources.source import Source
from pic_tf.files.replaced import remove_partial, replaced
from pic_tf.instances.paging.pager import Pager
from pic_tf.replicas.collectives import local_indices, numbers_of_workers
from pic_tf.replicas.devices import is_chief
from pic_tf.runs import checkpoint_files
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.open_data import identity
from pic_tf.runs.room import check_free
from pic_tf.runs.rows_on_disk import open_pager
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE, IMAGES_FILE, METRICS_FILE, rows_folder
from pic_tf.settings import flag_files, quantities
from pic_tf.settings.config import Config


def find_checkpoint(
    config: Config, train: Source, strategy: tf.distribute.Strategy, allow_changed_flags: bool
) -> pathlib.Path | None:
    """Find the newest good checkpoint of this run; set damaged ones aside.

    Args:
      config: resolved configuration.
      train: training images.
      strategy: devices; the first worker searches for all.
      allow_changed_flags: go on with a run that began with other flags.

    Returns:
      The folder of the checkpoint; None where the run begins.

    Raises:
      ValueError: for a checkpoint of other images or flags, or where all are damaged.
    """
    directory, chief = pathlib.Path(config.output_dir) / CHECKPOINTS, is_chief(strategy)
    if chief:  # alone in the folder, see `exclusive`
        for folder in (directory.parent, *rows_folder(config).glob("*/*")):
            remove_partial(folder, older_than=0)
    path = _newest(directory) if chief else None
    step = int(numbers_of_workers(checkpoint_files.step_of(path) if path else 0, strategy)[0])
    if not step:
        return None
    path = checkpoint_files.states(directory).get(step)
    if path is None:
        raise ValueError(
            f"expected --output_dir {config.output_dir!r} to be one folder for all workers, "
            f"got none of its checkpoint of step {step:,} here: use a disk that all share"
        )
    changed = _compare(config, train, path)
    if changed and not allow_changed_flags:
        raise ValueError(
            f"expected the flags of the run in {config.output_dir!r}, got {', '.join(changed)}: "
            "use another --output_dir, or --allow_changed_flags to go on with these"
        )
    if chief:
        print(f"resuming from step {step:,} of {quantities.total_steps(config):,} ({path})")
        for flag in changed:
            print(f"changed: {flag}")
    return path


def _newest(directory: pathlib.Path) -> pathlib.Path | None:
    """Find the newest good checkpoint of a folder; set damaged ones aside."""
    checkpoint_files.remove_partial(directory)
    path, damaged = checkpoint_files.newest(directory)
    if damaged and path is None:
        raise ValueError(
            f"expected a good checkpoint in {str(directory)!r}, got {len(damaged)} damaged ones "
            f"(the newest: {next(iter(damaged.values()))}): bring one back, or move the folder "
            "away to begin anew"
        )
    for bad, reason in damaged.items():
        moved = checkpoint_files.set_aside(bad)
        print(f"damaged checkpoint: {reason}; moved to {moved}", file=sys.stderr)
    return path


def _compare(config: Config, train: Source, path: pathlib.Path) -> list[str]:
    """List the changed flags of a checkpoint's run; raise ValueError for other images."""
    images = json.loads(checkpoint_files.read_text(path, IMAGES_FILE))
    if images != identity(train):
        raise ValueError(
            f"expected the {images['count']:,} images of the run in {config.output_dir!r}, got "
            f"{len(train):,} of which some have other names or places: their rows would go to the "
            "wrong images; bring the old ones back, or use another --output_dir"
        )
    return flag_files.changed(flag_files.from_flagfile(str(path / FLAGS_FILE)), config)


def check_room(
    config: Config, size: int, pager: Pager | None, strategy: tf.distribute.Strategy
) -> None:
    """Refuse a disk without room for checkpoints or for this worker's rows.

    Args:
      config: the configuration; it says how many checkpoints are kept, and one more is written.
      size: bytes of a checkpoint; 0 for none.
      pager: where rows are on disk.
      strategy: devices.

    Raises:
      ValueError: where the files will not fit.
    """
    output, keep = pathlib.Path(config.output_dir), config.keep_checkpoints
    will_go = list(checkpoint_files.states(output / CHECKPOINTS).values())[-keep:] if size else []
    there = sum(file.stat().st_size for path in will_go for file in path.iterdir())
    checkpoints = (keep + 1) * size - there
    needed, rows = {output: checkpoints}, config.instance_store == "disk"
    if rows:
        folder = rows_folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        own_share = len(local_indices(strategy)) / strategy.num_replicas_in_sync
        more = quantities.rows_on_disk(config) * own_share - pager.bytes_there()
        same = os.stat(folder).st_dev == os.stat(output).st_dev
        needed = {output: checkpoints + more} if same else needed | {folder: more}
    purpose = f"{keep + 1} checkpoints{' and the rows' if rows else ''}"
    advice = "make room, keep fewer (--keep_checkpoints), or use another --output_dir"
    for folder, size in needed.items():
        check_free(size, folder, purpose, advice)


def restore_run(
    checkpoints: Checkpoints, pager: Pager | None, found: pathlib.Path | None, report: bool = True
) -> int:
    """Bring the model and the pager to the state found, or the pager to the start.

    Args:
      checkpoints: of the run.
      pager: not opened yet; None where no row is on disk.
      found: folder of a checkpoint; None for a new run.
      report: whether to print a line where rows are moved.

    Returns:
      The number of steps taken by then.

    Raises:
      ValueError: for a checkpoint of another model, rows of other windows, blocks that are not
        there, a full disk.
      OSError: where blocks cannot be written.
    """
    state = checkpoints.read(found) if found else None
    if pager:
        open_pager(pager, state, report)
    return checkpoints.restore(state) if state else 0


def begin_files(config: Config, output: pathlib.Path, found: pathlib.Path | None) -> None:
    """Bring flags and figures in the output folder to their state at the checkpoint found."""
    with replaced(output / FLAGS_FILE) as file:
        file.write(flag_files.to_flagfile(config))
    (output / METRICS_FILE).unlink(missing_ok=True)
    if found:
        with replaced(output / METRICS_FILE) as file:
            file.write(checkpoint_files.read_text(found, METRICS_FILE))


def texts_beside(config: Config, images: str) -> dict[str, str]:
    """Give the text files that stand beside a checkpoint, so that it needs nothing else."""
    metrics = pathlib.Path(config.output_dir) / METRICS_FILE
    return {
        FLAGS_FILE: flag_files.to_flagfile(config),
        METRICS_FILE: metrics.read_text() if metrics.exists() else "",
        IMAGES_FILE: images,
    }
