"""Print step times on 8 to 1024 accelerators by the model of `step_time`."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

from absl import flags

from . import step_time
from .processes import fail

ACCELERATORS = [8, 16, 32, 64, 128, 256, 512, 1024]  # R


def print_model(training: step_time.Training, accelerator: step_time.Accelerator) -> None:
    """Print the assumptions, and a line for each number of accelerators."""
    b = training.per_replica_batch
    d = training.embedding_dim
    k = training.num_negatives
    n = training.num_instances
    each = accelerator
    print(
        "model of step time on R accelerators, nothing measured:\n"
        f"  each: {each.views_per_second:,.6g} images/s through the backbone, "
        f"{each.teraflops:,.6g} TFLOP/s in the soft-max's products,\n"
        f"  {each.link_gigabytes:,.6g} GB/s of bus bandwidth and {each.link_latency_us:,.6g} us a "
        "hop; an all_gather moves (R - 1) / R of its result\n"
        "  in ceil(log2 R) hops, an all_reduce twice as much in twice as many; PIC's step has "
        f"{step_time.ALL_GATHERS} and {step_time.ALL_REDUCES} of them\n"
        f"  {b:,} views on each, B = {b:,} R; D {d}, K {k:,} and N {n:,} over all; "
        f"{training.parameters:,} parameters\n"
        "  with gradients in float32\n"
        "  no communication at the same time as computation (pessimistic); the input keeps up;\n"
        "  left out: moves of rows between ring and store, and passes over the B x K / R logits\n"
        "  beside their products\n"
        "  efficiency: against R accelerators that train alone; PIC: its products and\n"
        "  communication, all that a plain data-parallel step of the backbone does not have"
    )
    fits = [count for count in ACCELERATORS if count * b <= k and k % count == 0]
    if fits:
        print(
            f"\n{'R':>5}{'B':>9}{'backbone':>10}{'products':>10}{'PIC comm':>10}{'gradients':>11}"
            f"{'step ms':>9}{'images/s':>12}{'efficiency':>12}{'PIC':>7}{'PIC MB':>9}{'rows MB':>9}"
        )
    for count in fits:
        time_ms = step_time.step_time(training, accelerator, count)
        moved = step_time.pic_bytes(count * b, training.embedding_dim, count) / 1e6
        rows = step_time.row_memory(training, count) / 1e6
        rate = step_time.images_per_second(training, accelerator, count)
        efficiency = step_time.efficiency(training, accelerator, count)
        print(
            f"{count:5}{count * b:9,}{time_ms.backbone:10.2f}{time_ms.products:10.2f}"
            f"{time_ms.collectives:10.2f}{time_ms.gradients:11.2f}{time_ms.total:9.2f}"
            f"{rate:12,.0f}{efficiency:12.1%}{time_ms.pic_share:7.1%}{moved:9.1f}{rows:9,.1f}"
        )
    if fits != ACCELERATORS:
        print(f"  other R: K must be a multiple of R and at least B = {b} R")


def checked_model() -> tuple[step_time.Training, step_time.Accelerator]:
    """Read the model's inputs from the flags; fail where one is out of its range."""
    values = flags.FLAGS
    check_positive("embedding_dim", "num_negatives", "views_per_second", "teraflops")
    check_positive("link_gigabytes", "per_replica_batch", "parameters")
    if values.link_latency_us < 0:
        fail(f"expected --link_latency_us >= 0, got {values.link_latency_us:g}: use 0 for none")
    if values.model_instances < values.num_negatives:
        fail(
            f"expected --model_instances >= --num_negatives ({values.num_negatives}), got "
            f"{values.model_instances}: use fewer negatives"
        )
    training = step_time.Training(
        values.per_replica_batch,
        values.embedding_dim,
        values.num_negatives,
        values.model_instances,
        values.parameters,
    )
    links = values.link_gigabytes, values.link_latency_us
    return training, step_time.Accelerator(values.views_per_second, values.teraflops, *links)


def check_positive(*names: str) -> None:
    """Fail for a flag that is not a number above 0."""
    for name in names:
        value = flags.FLAGS[name].value
        if not value > 0:
            fail(f"expected --{name} > 0, got {value:g}: use a positive number")


def define_flags() -> None:
    """Define the flags of the model that `replicas` prints."""
    flags.DEFINE_float(
        "views_per_second",
        2500.0,
        "Images a second through backbone and head of one accelerator, both passes.",
    )
    flags.DEFINE_float(
        "teraflops", 50.0, "TFLOP/s that one accelerator achieves in the products of the soft-max."
    )
    flags.DEFINE_float(
        "link_gigabytes",
        100.0,
        "All-reduce bus bandwidth of an accelerator in GB/s; some 25 between machines.",
    )
    flags.DEFINE_float("link_latency_us", 20.0, "Microseconds that a hop of a collective takes.")
    flags.DEFINE_integer("per_replica_batch", 64, "Views a step on each accelerator, B / R.")
    # ResNet-50 and the head 2048 -> 2048 -> 128.
    flags.DEFINE_integer(
        "parameters", 23_508_032 + 4_458_624, "Trainable parameters of backbone and head."
    )
    flags.DEFINE_integer(
        "model_instances", 1_281_167, "Training images N, for the memory of their rows."
    )
