"""Plan a run, for any number of images and replicas, without data or devices.

    python tools/plan.py --num_instances=1000000000 --plan_replicas=64 --instance_store=disk
    python tools/plan.py --flagfile=configs/in1k_200ep.flags --plan_replicas=8 --device_gb=16

The plan that pic_tf.train prints, with its flags: bytes on each device, in host memory and on disk,
bytes that move in a step, size of a checkpoint, steps, how long rows rest, what they shrink to and
whether the norm floor acts. Window, stride and negatives that are not named are the recommended
ones. Then every --instance_store beside the machine's memory.
"""

import dataclasses
import functools

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.models.projection import projection_head
from pic_tf.settings import defaults, flag_files, networks, plan, quantities
from pic_tf.settings.config import Config
from pic_tf.settings.help import help_text
from pic_tf.settings.learning import INSTANCE_STORES


def plans(config: Config, count: int, machine: dict[str, float], machines: int = 1) -> str:
    """Format the plan, and a line for each --instance_store.

    Args:
      config: the configuration, with the number of instances.
      count: R, replicas.
      machine: gigabytes "device" of each replica, "host" and "disk" of each machine; 0 for not
        known.
      machines: number of machines for the replicas; each has a part of the rows, and room for all
        checkpoints.

    Returns:
      Lines to print.

    Raises:
      ValueError: for settings that do not fit.
    """
    if not config.num_instances:
        raise ValueError(
            "expected --num_instances, got none: the plan needs no data, but their number"
        )
    if config.dataset == "digits":
        config = dataclasses.replace(config, dataset="any data set")
    config = defaults.resolve(config, config.num_instances, count)
    backbone = networks.plain_backbone(config)
    head = projection_head(
        config.head, backbone.output_shape[-1], config.hidden_dim, config.embedding_dim
    )
    lines = [plan.describe(config, backbone, head, f"{count:,} replicas", count), ""]
    lines.append(f"{'--instance_store':17}{'each device':>14}{'each host':>14}{'each disk':>14}")
    for store in INSTANCE_STORES:
        other = dataclasses.replace(config, instance_store=store)
        try:
            other = defaults.resolve(other, config.num_instances, count)
        except ValueError as error:
            lines.append(f"{store:17}  {error}")
            continue
        on_device = sum(quantities.memory(other, backbone, head, count).values())
        checkpoint = quantities.checkpoint_size(other, backbone, head, count)
        disk = quantities.kept_checkpoints(other) * checkpoint
        disk += quantities.rows_on_disk(other) // machines if store == "disk" else 0
        # While a checkpoint is written its rows are in the memory of each host.
        needed = {"device": on_device, "host": checkpoint, "disk": disk}
        short = [name for name, size in needed.items() if 0 < machine[name] * 1e9 < size]
        verdict = f"  too little memory or room: {', '.join(short)}" if short else ""
        sizes = "".join(f"{plan.as_text(size):>14}" for size in needed.values())
        lines.append(f"{store:17}{sizes}{verdict}")
    return "\n".join(lines)


def main() -> None:
    values = flags.FLAGS
    machine = {"device": values.device_gb, "host": values.host_gb, "disk": values.disk_gb}
    print(plans(flag_files.from_flags(), values.plan_replicas, machine, values.plan_machines))


def define_flags() -> None:
    flag_files.define_flags()
    flags.DEFINE_integer(
        "plan_replicas", 1, "Number of replicas R to plan for; none of them has to be here.", 1
    )
    flags.DEFINE_integer("plan_machines", 1, "Number of machines that share the replicas.", 1)
    rooms = {"device": "memory of a device", "host": "memory of a host", "disk": "a disk"}
    for name, room in rooms.items():
        text = f"Gigabytes of {room} to compare the plan with; 0 for not known."
        flags.DEFINE_float(f"{name}_gb", 0.0, text, 0.0)


if __name__ == "__main__":
    define_flags()
    command_line.run(main, functools.partial(help_text, Config))
