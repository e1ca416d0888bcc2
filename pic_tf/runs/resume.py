"""Find the checkpoint of a run, and check that the run can go on from it."""

import json
import pathlib
import sys

import tensorflow as tf

from pic_tf.files.replaced import remove_partial, replaced
from pic_tf.instances.paging.pager import Pager
from pic_tf.replicas.collectives import numbers_of_workers
from pic_tf.replicas.devices import is_chief
from pic_tf.runs import checkpoint_files
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.rows_on_disk import open_pager
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE, IMAGES_FILE, METRICS_FILE


def find_checkpoint(
    output: pathlib.Path,
    rows: pathlib.Path,
    images: dict[str, str | int],
    strategy: tf.distribute.Strategy,
) -> pathlib.Path | None:
    """Find the newest good checkpoint of a run; set damaged ones aside.

    Args:
      output: output folder of the run.
      rows: its folder of rows on disk.
      images: `identity` of the training images.
      strategy: devices; the first worker searches for all.

    Returns:
      The folder of the checkpoint; None where the run begins.

    Raises:
      ValueError: for a checkpoint of other images, or where all are damaged.
    """
    directory, chief = output / CHECKPOINTS, is_chief(strategy)
    if chief:  # alone in the folder, see `exclusive`
        for folder in (output, *rows.glob("*/*")):
            remove_partial(folder, older_than=0)
    path = _newest(directory) if chief else None
    step = int(numbers_of_workers(checkpoint_files.step_of(path) if path else 0, strategy)[0])
    if not step:
        return None
    path = checkpoint_files.states(directory).get(step)
    if path is None:
        raise ValueError(
            f"expected --output_dir {str(output)!r} to be one folder for all workers, "
            f"got none of its checkpoint of step {step:,} here: use a disk that all share"
        )
    theirs = json.loads(checkpoint_files.read_text(path, IMAGES_FILE))
    if theirs != images:
        raise ValueError(
            f"expected the {theirs['count']:,} images of the run in {str(output)!r}, got "
            f"{images['count']:,} of which some have other names or places: their rows would go to "
            "the wrong images; bring the old ones back, or use another --output_dir"
        )
    return path


def go_on_from(
    path: pathlib.Path, changed: list[str], allowed: bool, total_steps: int, report: bool
) -> None:
    """Say from where a run goes on; refuse other flags, unless they are allowed.

    Args:
      path: folder of the checkpoint.
      changed: the flags that are others, with their old and new values.
      allowed: whether they may be.
      total_steps: T, of the whole run.
      report: whether to print.

    Raises:
      ValueError: for changed flags.
    """
    if changed and not allowed:
        raise ValueError(
            f"expected the flags of the run in {str(path.parent.parent)!r}, got "
            f"{', '.join(changed)}: use another --output_dir, or --allow_changed_flags to go on "
            "with these"
        )
    if report:
        step = checkpoint_files.step_of(path)
        print(f"resuming from step {step:,} of {total_steps:,} ({path})")
        for flag in changed:
            print(f"changed: {flag}")


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


def begin_files(output: pathlib.Path, flags: str, found: pathlib.Path | None) -> None:
    """Bring flags and figures in the output folder to their state at the checkpoint found."""
    with replaced(output / FLAGS_FILE) as file:
        file.write(flags)
    (output / METRICS_FILE).unlink(missing_ok=True)
    if found:
        with replaced(output / METRICS_FILE) as file:
            file.write(checkpoint_files.read_text(found, METRICS_FILE))


def texts_beside(output: pathlib.Path, flags: str, images: dict[str, str | int]) -> dict[str, str]:
    """Give the text files that stand beside a checkpoint, so that it needs nothing else.

    Args:
      output: output folder of the run.
      flags: its flag file.
      images: `identity` of its training images.

    Returns:
      Texts by name.
    """
    metrics = output / METRICS_FILE
    return {
        FLAGS_FILE: flags,
        METRICS_FILE: metrics.read_text() if metrics.exists() else "",
        IMAGES_FILE: json.dumps(images),
    }
