"""The benchmark of the stores in small."""

from tools.benchmark import store
from tools.benchmark.step import Sizes


def test_a_step_with_rows_on_disk_is_measured(tmp_path):
    sizes = Sizes(batch_size=8, embedding_dim=4, num_negatives=64)
    costs = store.costs("disk", sizes, 2048, "disk", 3, str(tmp_path))
    assert len(costs.step) == 3 and len(costs.turn) == 5 and min(costs.step + costs.turn) > 0
    assert (
        costs.moved == 128 * 40 / 128 and costs.resident > 1e8
    )  # a stride of 128 rows of 40 bytes in 128 steps
    assert list(tmp_path.rglob("block-*.npz"))
