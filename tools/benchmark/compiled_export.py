"""Write compiled steps as StableHLO with what `compiled_step run` needs to start them elsewhere."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.files.replaced import replaced

from .compiled_settings import SIZES_TO_EXTEND, Setting, settings, tiny_settings

_SMALL = 16  # numbers in a row that the description holds itself
_DRAWN = 4096  # more floats than this travel as mean and deviation


def export(folder: pathlib.Path, tiny: bool) -> None:
    """Write program, state and draws of every setting.

    Args:
      folder: made if it is not there; gets `steps.json`, `arrays.npz`, and NAME.mlirbc.
      tiny: the settings to check alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    chosen = list(tiny_settings() if tiny else settings())
    described = []
    for setting in (bar := tqdm(chosen, unit="program")):
        bar.set_postfix_str(setting.name)
        described.append(_write(setting, folder, arrays))
    with replaced(folder / "arrays.npz", "wb") as file:
        np.savez_compressed(file, **arrays)
    with replaced(folder / "steps.json") as file:
        described = {"tensorflow": tf.__version__, "settings": described}
        json.dump(described, file, indent=1)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{len(chosen)} settings in {folder}, {size:.1f} MB")


def _write(setting: Setting, folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write the programs of a setting; describe its inputs."""
    tf.config.experimental.enable_tensor_float_32_execution(not setting.exact)
    stem = "".join(c if c.isalnum() else "_" for c in setting.name)
    small = SIZES_TO_EXTEND if not setting.checked else [2 * s + 7 for s in (30, 40)]
    files = []
    for number, arguments in enumerate([(n,) for n in small] if setting.sizes else [()]):
        step, concrete, batch = _traced(setting, arguments)
        program = step.experimental_get_compiler_ir(*batch)(stage="stablehlo_serialized")
        files.append(f"{stem}_{number}.mlirbc")
        with replaced(folder / files[-1], "wb") as file:
            file.write(program)
    described = {
        "name": setting.name,
        "files": files,
        "sizes": setting.sizes,
        "small_sizes": list(small) if setting.sizes else [],
        "batch": setting.batch,
        "seconds": setting.seconds,
        "checked": setting.checked,
    }
    if setting.checked and setting.sizes:  # of the size that the program is extended to
        step, concrete, batch = _traced(setting, setting.sizes)
    state = [_value(handle) for handle in concrete.captured_inputs]
    if setting.checked:
        described["results"] = _run(setting, step, concrete, batch, stem, arrays)
        # The row behind the last of the store takes what is written to no row, in any order.
        spare = [
            ((bound or setting.sizes[0]) + 1,) for kind, bound in setting.batch if kind == "ids"
        ]
        lengths = [value.shape[:1] for value in state]
        described["results"]["spare"] = [i for i, n in enumerate(lengths) if n in spare]
    exact = bool(setting.checked)
    described["state"] = [
        _recipe(value, f"{stem}_{i}", arrays, exact) for i, value in enumerate(state)
    ]
    return described


def _traced(
    setting: Setting, arguments: tuple[int, ...]
) -> tuple[
    tf.types.experimental.PolymorphicFunction,
    tf.types.experimental.ConcreteFunction,
    list[tf.TensorSpec],
]:
    """Build a step afresh: (function, its trace, its batch)."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(0)
    function, batch = setting.build(*arguments)
    step = tf.function(function, jit_compile=True)
    return step, step.get_concrete_function(*batch), batch


def _value(handle: tf.Tensor) -> np.ndarray:
    """Value of a captured variable, or of a captured constant."""
    if handle.dtype != tf.resource:
        return handle.numpy()
    dtype = tf.dtypes.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).numpy()


def _recipe(
    value: np.ndarray, key: str, arrays: dict[str, np.ndarray], exact: bool
) -> dict[str, Any]:
    """Describe a value shortly: a repeated row, a range, numbers to draw, or the array itself."""
    flat = value.reshape(-1)
    if (flat == flat[0]).all():
        return {"fill": flat[0].item()}
    rows = value.reshape(len(value), -1)
    if rows.shape[1] <= _SMALL and (rows == rows[0]).all():
        return {"rows": value[0].tolist()}
    if value.ndim == 1 and value.dtype.kind == "i" and (np.diff(value) == 1).all():
        return {"range": value[0].item()}
    if value.dtype.kind == "f" and value.size > _DRAWN and not exact:
        return {"normal": [value.mean(dtype=float), value.std(dtype=float)]}
    arrays[key] = value
    return {"array": key}


def _run(
    setting: Setting,
    step: tf.types.experimental.PolymorphicFunction,
    concrete: tf.types.experimental.ConcreteFunction,
    batch: list[tf.TensorSpec],
    stem: str,
    arrays: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Take the steps to check; keep batches, losses and the state at the end."""
    random = np.random.default_rng(0)
    draws = {
        "uniform": lambda spec, bound: random.random(spec.shape),
        "integers": lambda spec, bound: random.integers(bound, size=spec.shape),
        "ids": lambda spec, bound: random.permutation(bound or setting.sizes[0])[: spec.shape[0]],
    }
    losses, batches = [], []
    for _ in range(setting.checked):
        values = [
            draws[kind](spec, bound).astype(spec.dtype.as_numpy_dtype)
            for spec, (kind, bound) in zip(batch, setting.batch)
        ]
        losses.append(step(*map(tf.constant, values)).numpy())
        batches.append(values)
    for i, values in enumerate(zip(*batches)):
        arrays[f"{stem}_batch_{i}"] = np.stack(values)
    arrays[f"{stem}_losses"] = np.array(losses)
    for i, handle in enumerate(concrete.captured_inputs):
        arrays[f"{stem}_end_{i}"] = _value(handle)
    return {"stem": stem}
