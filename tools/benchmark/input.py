"""Measure the cost of an image before it is on the device, here and with other libraries."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import tensorflow as tf
from absl import flags
from tqdm import tqdm

from pic_tf.data.augment import Augmentation
from pic_tf.data.crops import Crop
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.pipeline import pretraining_batches
from pic_tf.data.sources.named import open_source
from pic_tf.data.sources.source import Source

from .processes import fail

ONE, SEVERAL = (Crop(224, (0.08, 1.0)),), (Crop(160, (0.14, 1.0)), Crop(96, (0.08, 0.14), 3))
# Batches, more than a pipeline reads ahead: its set-up takes some tenths of a second once.
SKIPPED = 8
RECORDS = 512  # a batch of random reads
# (ours, the other one, the least ratio of CPU time)
TARGETS = (
    ("ours, host part", "torchvision", 3.0),
    ("ours, host part, packed", "torchvision", 6.0),
    ("ours, host part, packed", "torchvision, packed", 4.5),
    ("ours, multi-crop, packed", "torchvision, multi-crop, packed", 4.0),
    ("ours, everything on the CPU", "torchvision", 1.1),
    ("ours, everything on the CPU, packed", "torchvision, packed", 1.1),
    ("ours, host part, packed", "TensorFlow, decoding alone, packed", 0.45),
)
Turn = Callable[[int], tuple[float, float]]  # from a number of images to (CPU seconds, seconds)


def of_dataset(batches: Callable[[int], tf.data.Dataset], batch_size: int) -> Turn:
    """Make turns of a pipeline in its steady state; `batches` makes so many batches."""

    def turn(images: int) -> tuple[float, float]:
        count = -(-images // batch_size)
        # Batches to spare: what is read ahead at the end makes up for what was at the start.
        iterator = iter(batches(2 * (SKIPPED + count)))
        for _ in range(SKIPPED):
            next(iterator)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            next(iterator)
        share = images / (count * batch_size)
        return (time.process_time() - cpu) * share, (time.perf_counter() - wall) * share

    return turn


def ours(source: Source, batch_size: int, crops: tuple[Crop, ...], on_host: bool = False) -> Turn:
    order = epoch_order(len(source), batch_size)
    augment = Augmentation().of_one if on_host else None
    return of_dataset(
        lambda n: pretraining_batches(
            source, order, crops=crops, seed=0, start_step=0, stop_step=n, augment=augment
        ),
        batch_size,
    )


def decoding_alone(source: Source, batch_size: int) -> Turn:
    """Make turns of TensorFlow's decoding of whole images, and nothing else."""

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.shape(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"))

    def batches(count: int) -> tf.data.Dataset:
        ids = tf.data.Dataset.range(count * batch_size).map(lambda i: i % len(source))
        records = ids.batch(batch_size).map(source.read, num_parallel_calls=4).unbatch()
        return records.map(decode, num_parallel_calls=os.cpu_count()).batch(batch_size).prefetch(2)

    return of_dataset(batches, batch_size)


class Others:
    """The variants of `input_torch.py`, which runs in a process of its own."""

    def __init__(self, python: str, originals: pathlib.Path, packed: pathlib.Path):
        script = pathlib.Path(__file__).with_name("input_torch.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
        self._process = subprocess.Popen(
            [python, str(script), str(originals), str(packed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.versions, *self.names = self._process.stdout.readline().rstrip("\n").split("\t")

    def turn(self, name: str) -> Turn:
        def turn(images: int) -> tuple[float, float]:
            print(f"{name}\t{images}", file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline().split()
            if len(answer) != 2:
                fail(
                    "expected the other libraries to read all images, "
                    f"got an end in {name!r}: remove broken images"
                )
            return float(answer[0]), float(answer[1])

        return turn

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def ids_per_second() -> float:
    """Rate of the ids of ImageNet's order, as the pipeline makes them."""
    order = SlidingWindow(1_281_167, 256, 131_072, 16_384)
    ids = tf.data.Dataset.range(2500).map(order.instance_ids, num_parallel_calls=tf.data.AUTOTUNE)
    return _per_second(ids.prefetch(2), order.batch_size)


def reads_per_second(source: Source) -> float:
    """Rate of records read at random."""
    draws = tf.data.Dataset.range(200).map(
        lambda i: tf.random.stateless_uniform([RECORDS], [0, i], 0, len(source), tf.int64)
    )
    return _per_second(draws.map(source.read, num_parallel_calls=2).prefetch(2), RECORDS)


def _per_second(batches: tf.data.Dataset, size: int) -> float:
    iterator = iter(batches)
    for _ in range(20):
        next(iterator)
    start = time.perf_counter()
    count = sum(1 for _ in iterator)
    return count * size / (time.perf_counter() - start)


def input_() -> None:
    """Measure CPU time an image, variants in turn; then ratios."""
    values = flags.FLAGS
    if not values.images:
        fail("expected --images, got none: name a folder of JPEG photographs")
    b = values.input_batch_size
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        pack = [sys.executable, str(pathlib.Path(__file__).parents[1] / "pack.py")]
        pack += [f"--source={values.images}", f"--output={root / 'packed'}"]
        done = subprocess.run(pack, capture_output=True, text=True)
        if done.returncode:
            fail(done.stderr.removeprefix("error: ").strip().splitlines()[-1])
        try:
            originals, packed = open_source(values.images), open_source(str(root / "packed"))
        except ValueError as error:
            fail(str(error))
        (root / "files").mkdir()
        for i, record in enumerate(packed.read(tf.range(len(packed), dtype=tf.int64)).numpy()):
            (root / "files" / f"{i:06d}.jpg").write_bytes(record)
        turns = {
            "ours, host part": ours(originals, b, ONE),
            "ours, host part, packed": ours(packed, b, ONE),
            "ours, multi-crop, packed": ours(packed, b, SEVERAL),
            "ours, everything on the CPU": ours(originals, b, ONE, on_host=True),
            "ours, everything on the CPU, packed": ours(packed, b, ONE, on_host=True),
            "TensorFlow, decoding alone": decoding_alone(originals, b),
            "TensorFlow, decoding alone, packed": decoding_alone(packed, b),
        }
        others = Others(values.torch_python, pathlib.Path(values.images), root / "files")
        missing = [name for name in ("torchvision", "albumentations") if name not in others.names]
        if missing:
            print(
                f"{' and '.join(missing)} left out: pip install torch torchvision albumentations, "
                "here or in an environment that --torch_python names"
            )
        turns |= {name: others.turn(name) for name in others.names}
        versions = ", ".join(filter(None, (f"TensorFlow {tf.__version__}", others.versions)))
        print(
            f"input: {len(originals):,} images of {values.images}, B {b}, "
            f"{os.cpu_count()} CPU cores, {versions}",
            flush=True,
        )
        timings = {name: [] for name in turns}
        rounds, bar_format = values.input_repeats, "{l_bar}{bar:20}| {elapsed}{postfix}"
        with tqdm(total=(1 + rounds) * len(turns), bar_format=bar_format) as bar:
            for turn, name in itertools.product(range(1 + rounds), turns):
                bar.set_postfix_str(name)
                timing = turns[name](values.input_images if turn else b)
                if turn:  # the first warms caches, and compiles
                    timings[name].append(timing)
                bar.update()
        others.close()
        rates = [(ids_per_second(), reads_per_second(packed)) for _ in range(rounds)]
    report(timings, values.input_images, rates)


def report(timings: dict[str, list], images: int, rates: list[tuple[float, float]]) -> None:
    cpu = {}
    print(f"\n{'variant':38}{'CPU ms an image':>16}{'images/s':>10}")
    for name, timing in timings.items():
        seconds, elapsed = map(statistics.median, zip(*timing))
        cpu[name] = 1e3 * seconds / images
        print(f"{name:38}{cpu[name]:16.2f}{images / elapsed:10,.0f}")
    for name, other, target in TARGETS:
        if other in cpu:
            ratio = cpu[other] / cpu[name]
            met = "met" if ratio >= target else "NOT met"
            print(f"{other} / {name}: {ratio:.2f}, target >= {target:g}: {met}")
    targets = {"ids of the order": 1_000_000, "random records": 20_000}
    for (name, target), values in zip(targets.items(), zip(*rates)):
        rate = statistics.median(values)
        met = "met" if rate >= target else "NOT met"
        print(f"{name}: {rate:,.0f} a second, target >= {target:,}: {met}")


def define_flags() -> None:
    """Define the flags of `input`."""
    flags.DEFINE_string(
        "images", "", "Folder of JPEG photographs for input to measure with; it has to be given."
    )
    flags.DEFINE_integer("input_batch_size", 50, "Images a batch of input.", lower_bound=1)
    flags.DEFINE_integer(
        "input_images", 1200, "Images that each variant of input reads in a turn.", lower_bound=1
    )
    flags.DEFINE_integer("input_repeats", 5, "Turns of each variant of input.", lower_bound=1)
    flags.DEFINE_string(
        "torch_python",
        sys.executable,
        "Python for input that has torch, torchvision and albumentations installed; default the "
        "one that runs this.",
    )
