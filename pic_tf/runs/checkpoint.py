"""Save and restore all that decides the future of a run."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.restore_rows import restore
from pic_tf.instances.row_model import RowModel
from pic_tf.instances.rows import check_sizes, ids_here, snapshot
from pic_tf.optim.history import resized
from pic_tf.replicas import collectives
from pic_tf.replicas.devices import is_chief
from pic_tf.runs import checkpoint_files
from pic_tf.runs.state import (
    CAPACITY,
    HEAD,
    INSTANCES,
    PRODUCTS,
    SEGMENTS,
    TABLES,
    VISITED_BEFORE,
    State,
    of_this_model,
    read_state,
)
from pic_tf.runs.variables import assign, check_shapes, named_variables

_REPLICAS = "replicas/"  # values [R, ...], one a replica
# Where values of replicas may differ.
_LOCAL = ("backbone/", "projection/", "key_backbone/", "key_projection/", "metrics/")


class Checkpoints:
    """Checkpoints of a compiled model: network, rows, ring, momentum, history, step, metrics.

    They have one form for any number of replicas: instance rows by instance (`RowSnapshot`), batch
    statistics as the mean over replicas. What replicas keep for themselves besides, their batch
    statistics and running metrics, is there too and comes back where their number is the same.

    `save` copies the state to the host; a thread of its own writes the files while training goes
    on. With several workers each has to call every method; the first one writes.

    Args:
      directory: folder to keep them in; all workers must see it.
      model: a compiled model.
      keep: how many of the newest to keep.
      keep_every: also keep those of every so many steps; 0 for none.
      pager: where rows rest elsewhere than on the device. Blocks on disk stay where they are: a
        checkpoint holds the other rows, and the blocks that the oldest one needs are kept.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        model: GuardedModel,
        keep: int = 2,
        keep_every: int = 0,
        pager: Pager | None = None,
    ):
        self._pager = pager
        self._directory = pathlib.Path(directory)
        self._model = model
        self._classifier = model.classifier if isinstance(model, RowModel) else None
        self._strategy = model.distribute_strategy
        self._keep = keep
        self._keep_every = keep_every
        with self._strategy.scope():  # momentum must exist to be saved and restored
            model.build_optimizers()
        self._variables = dict(named_variables(model))
        # Those with a value a replica: batch statistics and running metrics.
        own = tf.VariableSynchronization.ON_READ
        self._local = {
            name: variable
            for name, variable in self._variables.items()
            if name.startswith(_LOCAL)
            and variable.synchronization == own
            and self._strategy.num_replicas_in_sync > 1
        }
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending = None
        self._saved = None  # the step whose state is on disk or on its way there

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self._model.lazy_sgd.iterations.numpy())

    def save(self, texts: Callable[[], dict[str, str]]) -> None:
        """Begin to write the state as it is now, unless that is saved already.

        Waits for the one before; where that could not be written, says so and goes on.

        Args:
          texts: gives text files by name to keep beside it; asked on the first worker.
        """
        step = self.step
        if self._saved == step:
            return
        try:
            self.wait()
        except OSError as error:
            tqdm.write(f"no checkpoint written ({error}); training goes on", file=sys.stderr)
        variables = {name: np.array(v.numpy()) for name, v in self._variables.items()}
        variables[CAPACITY] = np.array(self._model.lazy_sgd.history.capacity)
        tables = self._rows(step, variables) if self._classifier else {}
        values = collectives.values_of(list(self._local.values()), self._strategy)
        variables |= {_REPLICAS + name: value for name, value in zip(self._local, values)}
        if is_chief(self._strategy):
            self._pending = self._writer.submit(self._write, step, variables, tables, texts())
        self._saved = step

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
          OSError: where it could not be written; the checkpoints before it are still there.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError:
            self._saved = None
            raise

    def close(self) -> None:
        """Wait for the writer, whether or not it succeeds."""
        self._writer.shutdown()

    def read(self, path: pathlib.Path) -> State:
        """Read a checkpoint, and check that it is one of this model; nothing changes.

        Args:
          path: its folder.

        Returns:
          What `restore` takes.

        Raises:
          ValueError: for the checkpoint of another model, of other windows, or one whose other rows
            are on disk where no pager is.
        """
        with of_this_model(path):
            state = read_state(path)
            values, capacity = state.variables, int(state.variables[CAPACITY])
            new_capacity = self._model.lazy_sgd.history.capacity
            values[PRODUCTS] = resized(values[PRODUCTS], capacity, new_capacity, state.step)
            check_shapes(values, self._variables.items())
            if state.segments and not self._pager:
                raise ValueError("its other rows are on disk: tools/collect_rows.py leads back")
            if (state.rows is None) != (self._classifier is None):
                raise ValueError("it is one of another --method")
            if state.rows:
                check_sizes(state.rows, self._classifier)
            if state.segments:
                self._check_windows(state)
        return state

    def restore(self, state: State) -> int:
        """Bring a checkpoint back.

        Args:
          state: from `read`. The pager, if there is one, has been opened at its step.

        Returns:
          The number of steps taken by then.
        """
        assign(state.variables, self._variables.items())
        if state.rows:
            on_device = (self._pager.here(), self._pager.stay(state.step)) if self._pager else ()
            restore(state.rows, self._classifier, self._strategy, *on_device)
        own = [state.variables.get(_REPLICAS + name, ()) for name in self._local]
        if all(len(value) == self._strategy.num_replicas_in_sync for value in own):
            collectives.assign_to(list(self._local.values()), own, self._strategy)
        self._saved = state.step
        return state.step

    def _check_windows(self, state: State) -> None:
        """Refuse rows that are not those of the pager's windows."""
        here = self._pager.rows_at(state.step, state.visited_before)
        if not np.array_equal(ids_here(here), state.rows.instance_ids):
            raise ValueError(
                f"its rows are those of other windows than {len(here)} replicas and these flags "
                "have: tools/collect_rows.py brings all rows into one checkpoint"
            )

    def _rows(self, step: int, variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Copy the rows to tables, and what ring and blocks need to the variables."""
        here = self._rows_here(step) if self._pager else None
        rows = snapshot(self._classifier, step, self._strategy, here)
        tables = {name: getattr(rows, name) for name in TABLES}
        variables[HEAD] = np.array(rows.head)
        if rows.instance_ids is not None:
            tables[INSTANCES] = rows.instance_ids
            segments = [dataclasses.astuple(segment) for segment in self._pager.segments]
            variables[VISITED_BEFORE] = np.array(self._pager.visited_before)
            variables[SEGMENTS] = np.array(segments)
        return tables

    def _rows_here(self, step: int) -> list[np.ndarray]:
        """Bring the pager and its blocks to a step; give the row numbers on the devices."""
        # An execution of several steps that failed in the middle has not told the pager.
        self._pager.follow(step)
        self._pager.flush()  # on every worker, before any can pass the exchange that follows
        if older := checkpoint_files.states(self._directory):
            self._pager.release(min(older))
        return self._pager.here()

    def _write(self, step: int, *state) -> None:
        checkpoint_files.write_checkpoint(self._directory, step, *state)
        try:
            checkpoint_files.remove(self._directory, self._keep, self._keep_every)
        except OSError as error:  # e.g. somebody reads one; the next time removes it
            tqdm.write(f"an old checkpoint is still there ({error})", file=sys.stderr)
