"""Measure an order of visits: visits per instance, distance between visits, majority ratio.

python tools/order_statistics.py --num_instances=100000 --batch_size=256
"""

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.data.order import SlidingWindow, default_shards, default_stride, default_window
from pic_tf.data.visit_statistics import visit_statistics
from pic_tf.files import command_line

flags.DEFINE_integer("num_instances", 100_000, "Number of training images, N.")
flags.DEFINE_integer("batch_size", 512, "Views a step, B.")
flags.DEFINE_integer("window_size", None, "Images in a window, W. The default is that of training.")
flags.DEFINE_integer(
    "window_stride", None, "Images by which the window moves, S. The default is W / 8."
)
flags.DEFINE_integer(
    "steps",
    None,
    "Steps to count. The default is one sweep of the window over all images, and two windows.",
)
flags.DEFINE_integer("seed", 0, "Seed of the order.")


def main() -> None:
    values = flags.FLAGS
    if values.batch_size < 1 or (values.steps is not None and values.steps < 1):
        raise ValueError(
            f"expected --batch_size and --steps >= 1, got {values.batch_size} and {values.steps}"
        )
    window, stride = default_window(values.num_instances, values.batch_size)
    if values.window_size is not None:
        window, stride = values.window_size, default_stride(values.window_size)
    if values.window_stride is not None:
        stride = values.window_stride
    shards = default_shards(values.num_instances, window, stride)
    sizes = values.num_instances, values.batch_size, window, stride
    order = SlidingWindow(*sizes, values.seed, virtual_shards=shards)
    windows = -(-values.num_instances // stride) + 2
    statistics = visit_statistics(order, values.steps or windows * order.steps_per_window)
    print(f"N {values.num_instances:,}, B {values.batch_size:,}, W {window:,}, S {stride:,}")
    print(f"views counted        {statistics['views']:,}")
    print(f"instances visited    {statistics['instances_visited']:,}")
    visits = f"{statistics['visits_per_instance']:.3g}"
    print(f"visits per instance  {visits} (W / S = {window / stride:.3g} a sweep)")
    print(f"median distance      {statistics['median_distance']:,.0f} views (W = {window:,})")
    if stride < values.num_instances:  # epochs have no overlap to speak of
        ratio = f"{statistics['majority_ratio']:.2%}"
        print(f"majority ratio       {ratio} (1 - S / W = {1 - stride / window:.2%})")


if __name__ == "__main__":
    command_line.run(main)
