"""Choose the devices that train: one, all of a machine, several machines, TPUs."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")


def set_up_tensorflow(
    strategy: str, replicas: int = 0, intra_op_threads: int = 0, deterministic: bool = False
) -> tf.distribute.Strategy:
    """Set threads, determinism and devices of the process, before TensorFlow's first operation.

    Args:
      strategy: as in `open_strategy`.
      replicas: as in `open_strategy`.
      intra_op_threads: threads of one operation; 0 for TensorFlow's own choice.
      deterministic: whether operations give the same bits every time, at some cost.

    Returns:
      The strategy.

    Raises:
      ValueError: for devices that are not there, or threads and parts of the CPU where an operation
        has run already.
    """
    if intra_op_threads:
        with _before_operations("--intra_op_threads"):
            tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return open_strategy(strategy, replicas)


@contextlib.contextmanager
def _before_operations(flag: str) -> Iterator[None]:
    """Say in one sentence that a process has begun with other devices."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            f"expected {flag} as in the first call of a process, before any operation of "
            "TensorFlow, got another one now: leave it as it is (0 where none was given), or "
            "start a new process"
        ) from error


def choose() -> str:
    """Name the strategy of `auto`: workers of TF_CONFIG or Slurm, else TPUs, else several GPUs."""
    in_slurm = "SLURM_PROCID" in os.environ
    if _workers() > 1 or (in_slurm and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"):
        return "multi_worker"
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def open_strategy(name: str, replicas: int = 0) -> tf.distribute.Strategy:
    """Make the strategy that a flag names; before TensorFlow's first operation.

    Args:
      name: "auto", "none", "mirrored" (all GPUs of this machine), "multi_worker" (all GPUs of all
        workers, or their CPUs; the cluster comes from TF_CONFIG or from Slurm) or "tpu" (the TPU
        named by TPU_NAME, or the local one).
      replicas: for "mirrored", how many GPUs to use; on a machine without any, into how many the
        CPU is split. 0 for all.

    Returns:
      The strategy.

    Raises:
      ValueError: for devices or a cluster that are not there.
    """
    name = choose() if name == "auto" else name
    if replicas and name != "mirrored":
        raise ValueError(
            f"expected --replicas with --strategy=mirrored only, got it with {name}: leave it out"
        )
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_devices(replicas))
    if name == "multi_worker":
        cluster = _cluster()
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster)
        except (ValueError, tf.errors.UnknownError) as error:
            raise ValueError(
                f"expected this worker to open its port in the cluster, got ({_reason(error)}): "
                "check TF_CONFIG, and that nothing else uses the port"
            ) from error
    return tf.distribute.TPUStrategy(_tpu())


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether this process writes the files of a run; the others train only."""
    resolver = strategy.cluster_resolver
    if not several_workers(strategy) or resolver is None:
        return True
    chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not chief and resolver.task_id == 0)


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether other processes take part."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def describe(strategy: tf.distribute.Strategy) -> str:
    """Describe the devices in one line, for the plan."""
    count = strategy.num_replicas_in_sync
    if several_workers(strategy):
        resolver = strategy.cluster_resolver
        workers = sum(len(tasks) for tasks in resolver.cluster_spec().as_dict().values())
        this = f"{resolver.task_type} {resolver.task_id}"
        return f"{count} replicas on {workers} workers, this is {this}"
    if count == 1:
        return "1 replica"
    return f"{count} replicas ({type(strategy).__name__})"


def _workers() -> int:
    """Count the workers in TF_CONFIG, and check it: TensorFlow's errors do not name it, or any."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster = {job: config.get("cluster", {}).get(job, []) for job in ("chief", "worker")}
        tasks = cluster["chief"] + cluster["worker"]
        addresses = [tuple(address.rsplit(":", 1)) for address in tasks]
        fits = all(host and 0 < int(port) < 2**16 for host, port in addresses)
        fits = fits and len(set(addresses)) == len(addresses)
        if len(addresses) > 1:
            fits = fits and 0 <= int(config["task"]["index"]) < len(cluster[config["task"]["type"]])
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(
            'expected TF_CONFIG like {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}, '
            f"each worker once and the task among them, got {text!r}"
        )
    return len(addresses)


def _reason(error: Exception) -> str:
    """Take the first sentence of another library's error."""
    return re.split(r"\.(?:\s|$)|\n", str(error) or type(error).__name__)[0]


def _devices(replicas: int) -> list[str]:
    """Name the GPUs to use; without any, as many parts of the CPU."""
    if gpus := tf.config.list_physical_devices("GPU"):
        if replicas > len(gpus):
            expected = f"expected --replicas of at most the {len(gpus)} GPUs here"
            raise ValueError(f"{expected}, got {replicas}")
        return [f"GPU:{i}" for i in range(replicas or len(gpus))]
    if replicas < 2:
        raise ValueError(
            "expected several GPUs for --strategy=mirrored, got none: "
            "name --replicas to split the CPU"
        )
    cpu, parts = tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()]
    with _before_operations("--replicas"):
        tf.config.set_logical_device_configuration(cpu, parts * replicas)
    return [f"CPU:{i}" for i in range(replicas)]


def _cluster() -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Make the resolver for Slurm; None for TF_CONFIG, which TensorFlow reads itself."""
    if _workers():
        return None
    if "SLURM_PROCID" not in os.environ:
        raise ValueError(
            "expected a cluster in TF_CONFIG or a Slurm step (srun), got neither: "
            "see docs/distributed.md"
        )
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver
    try:
        return slurm(port_base=12345, auto_set_gpu=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"expected a Slurm step with one task a machine (srun), got ({_reason(error)})"
        ) from error


def _tpu() -> tf.distribute.cluster_resolver.TPUClusterResolver:
    """Connect to the TPU, and initialise it."""
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if resolver.master().startswith("grpc://"):
            # Without an answer TensorFlow would wait for ever.
            host, _, port = resolver.master().removeprefix("grpc://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"expected a TPU, got none ({_reason(error)}): "
            "set TPU_NAME, or choose another --strategy"
        ) from error
    return resolver
