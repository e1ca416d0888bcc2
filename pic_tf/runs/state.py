"""Read the parts of a checkpoint, in a form for any number of replicas."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tf_keras as keras

from pic_tf.instances.paging.segments import RunSegment
from pic_tf.instances.rows import RowSnapshot
from pic_tf.optim.history import ProductHistory
from pic_tf.optim.variables import variables_of
from pic_tf.runs import checkpoint_files
from pic_tf.runs.variables import assign, check_shapes

TABLES = ("weights", "momentum", "stamp", "ring")  # of `RowSnapshot`
INSTANCES = "instance_ids"  # of the rows, where they are not those of all instances
VISITED_BEFORE, SEGMENTS = "pager/visited_before", "pager/writers"  # there with blocks on disk
HEAD, CAPACITY = "ring/head", "optimizer/history/capacity"
STEP, PRODUCTS = "optimizer/_iterations", "optimizer/history/products"


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Contents of a checkpoint, in a form for any number of replicas.

    Attributes:
      path: its folder.
      variables: values by name of all variables but the rows, and of what ring and blocks need.
      rows: those of all instances, or those that were on the devices; mapped from the files. None
        of a method without rows.
    """

    path: pathlib.Path
    variables: dict[str, np.ndarray]
    rows: RowSnapshot | None

    @property
    def step(self) -> int:
        """Updates applied by then."""
        return int(self.variables[STEP])

    @property
    def segments(self) -> list[RunSegment]:
        """Segments of the blocks that hold the other rows; none where all rows are here."""
        return [RunSegment(*map(int, segment)) for segment in self.variables.get(SEGMENTS, ())]

    @property
    def visited_before(self) -> bool:
        """True where all rows count as visited before the first window (`WindowSchedule`)."""
        return bool(self.variables.get(VISITED_BEFORE, False))


def read_state(path: pathlib.Path) -> State:
    """Read a checkpoint, whatever model it is of."""
    variables = checkpoint_files.read_variables(path)
    if HEAD not in variables:
        return State(path, variables, None)
    tables = {name: checkpoint_files.read_table(path, name) for name in TABLES}
    if checkpoint_files.has_table(path, INSTANCES):
        tables[INSTANCES] = np.array(checkpoint_files.read_table(path, INSTANCES))
    return State(path, variables, RowSnapshot(**tables, head=int(variables[HEAD])))


def restore_backbone(
    path: pathlib.Path, backbone: keras.Model, projection: keras.Model | None = None
) -> None:
    """Bring the weights of a checkpoint's backbone back, and nothing else but those of its head.

    Args:
      path: the checkpoint's folder.
      backbone: on one device.
      projection: its head, on one device; None to leave it out.

    Raises:
      ValueError: if it is the checkpoint of another model.
    """
    roots = {"backbone": backbone} | ({"projection": projection} if projection else {})
    variables = dict(variables_of(roots))
    with of_this_model(path):
        values = checkpoint_files.read_variables(path)
        check_shapes(values, variables.items())
    assign(values, variables.items())


@contextlib.contextmanager
def of_this_model(path: pathlib.Path) -> Iterator[None]:
    """Report in one sentence that a checkpoint does not fit.

    Args:
      path: its folder.

    Raises:
      ValueError: for a ValueError, a name that is not there, or a file.
    """
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"expected a checkpoint of this model in {str(path)!r}, "
            f"got one that does not fit ({reason}): use another --output_dir"
        ) from error


def history_of(path: pathlib.Path) -> ProductHistory:
    """Read the product history of a state on disk."""
    variables = checkpoint_files.read_variables(path)
    history = ProductHistory(int(variables[CAPACITY]))
    history.products.assign(variables[PRODUCTS])
    return history
