"""Compile StableHLO and run it with JAX alone."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import re

import numpy as np

# Remarks of TensorFlow about a program that plug-ins of JAX may not know.
_TENSORFLOW_ALONE = (
    "mhlo.cross_program_prefetches",
    "mhlo.input_output_alias",
    "mhlo.is_dynamic",
    "mhlo.use_auto_spmd_partitioning",
)


class Step:
    """A compiled step with its variables.

    Args:
      program: text or bytes of StableHLO.
      batch: number of its inputs that are no variables.
    """

    def __init__(self, program: str | bytes, batch: int, deterministic: bool = False):
        import jax
        from jax._src.interpreters.mlir import make_ir_context
        from jax._src.lib import xla_client
        from jaxlib.mlir import ir

        self._jax, self._batch = jax, batch
        backend = jax.local_devices()[0].client
        options = xla_client.CompileOptions()
        if deterministic and backend.platform != "cpu":
            options.env_option_overrides = [("xla_gpu_deterministic_ops", True)]
        with make_ir_context() as context:
            module = parse(program, context)
            names = {str(f.attributes["sym_name"]): f for f in module.body.operations}
            main = names['"main"']
            kind = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
            self.inputs = []
            for tensor in map(ir.RankedTensorType, kind.inputs):
                shape = [tensor.get_dim_size(d) for d in range(tensor.rank)]
                dtype = _DTYPES[str(tensor.element_type)]
                self.inputs.append(jax.ShapeDtypeStruct(shape, dtype))
            self._replaced = _donate(module, main, len(self.inputs))
            devices = xla_client.DeviceList(tuple(backend.local_devices()[:1]))
            self._program = backend.compile_and_load(module, devices, options)
        self.variables: list = []

    def __call__(self, batch: list):
        """Take a step; give its loss, which may not be there yet."""
        results = self._program.execute_sharded([*batch, *self.variables])
        results = results.disassemble_into_single_device_arrays()
        results = [shards[0] for shards in results]
        for parameter, result in self._replaced.items():
            self.variables[parameter - self._batch] = results[result]
        return results[0]

    def wait(self) -> None:
        """Wait for all steps."""
        self._jax.block_until_ready(self.variables)

    def memory(self) -> float:
        """Bytes of inputs, results and intermediate values."""
        used = self._program.get_compiled_memory_stats()
        inputs, results = used.argument_size_in_bytes, used.output_size_in_bytes
        return inputs + results - used.alias_size_in_bytes + used.temp_size_in_bytes


_DTYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "i64": np.int64,
    "i32": np.int32,
    "i1": np.bool_,
    "ui8": np.uint8,
}


def _donate(module, main, inputs: int) -> dict[int, int]:
    """Let results take the memory of the variables that they replace, as JAX says so.

    Returns:
      Number of the result that replaces each such input.
    """
    from jaxlib.mlir import ir

    text = str(module.operation.attributes["mhlo.input_output_alias"])
    pairs = re.findall(r"parameter_number = (\d+).*?output_index = array<i64: (\d+)>", text)
    replaced = {int(parameter): int(result) for parameter, result in pairs}
    number = ir.IntegerType.get_signless(32)
    attributes = [{} for _ in range(inputs)]
    for parameter, result in replaced.items():
        attributes[parameter] = {"tf.aliasing_output": ir.IntegerAttr.get(number, result)}
    main.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])
    for name in _TENSORFLOW_ALONE:
        if name in module.operation.attributes:
            del module.operation.attributes[name]
    _without_copies(module.operation)
    return replaced


def _without_copies(operation) -> None:
    """Take TensorFlow's `mhlo.copy` out: it is no StableHLO, and changes no value."""
    for region in operation.regions:
        for block in region:
            for inner in list(block):
                if inner.operation.name == "mhlo.copy":
                    inner.operation.results[0].replace_all_uses_with(inner.operation.operands[0])
                    inner.operation.erase()
                else:
                    _without_copies(inner.operation)


def parse(program: str | bytes, context):
    """Parse StableHLO, text or portable bytes."""
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    if isinstance(program, str):
        return ir.Module.parse(program)
    return stablehlo.deserialize_portable_artifact(context, program)


def extended(programs: list[bytes], small_sizes: list[int], size: int) -> str:
    """Make the program for N from those for two small N: every number in it is c or N + c.

    Raises:
      ValueError: where that is not so.
    """
    from jax._src.interpreters.mlir import make_ir_context

    with make_ir_context() as context:
        texts = [_renamed(str(parse(program, context))) for program in programs]
    one, other = (re.split(r"(\d+)", text) for text in texts)
    if len(one) != len(other):
        raise ValueError("expected programs of two sizes to differ in numbers alone")
    words = []
    for a, b in zip(one, other):
        if a != b:
            offset = int(a) - small_sizes[0]
            if int(b) - small_sizes[1] != offset:
                raise ValueError(f"expected numbers that follow N, got {a} and {b}")
            a = str(size + offset)
        words.append(a)
    return "".join(words)


def _renamed(text: str) -> str:
    """Number functions in the order of the text; TensorFlow's names count all it ever made."""
    numbers: dict[str, int] = {"main": 0}
    return re.sub(
        r"@([\w.]+)",
        lambda m: f"@f{numbers.setdefault(m[1], len(numbers))}" if m[1] != "main" else "@main",
        text,
    )


def initial_state(step: Step, batch: int, recipes: list[dict], arrays) -> list:
    """Make a state on the device from its description."""
    import jax
    import jax.numpy as jnp

    made = []
    for i, (target, recipe) in enumerate(zip(step.inputs[batch:], recipes, strict=True)):
        shape, dtype = target.shape, target.dtype
        ((kind, value),) = recipe.items()
        if kind == "fill":
            variable = jnp.full(shape, value, dtype)
        elif kind == "rows":
            variable = jnp.tile(jnp.asarray(value, dtype), [shape[0], *[1] * (len(shape) - 1)])
        elif kind == "range":
            variable = value + jnp.arange(shape[0], dtype=dtype)
        elif kind == "normal":
            mean, stddev = value
            variable = mean + stddev * jax.random.normal(jax.random.key(i), shape, dtype)
        else:
            variable = jnp.array(arrays[value], copy=True)  # the step takes it over
        made.append(variable)
    return jax.block_until_ready(made)


def batches(step: Step, draws: list, size: int, number: int) -> list[list]:
    """Draw the batches of all steps: images once, ids anew for each."""
    import jax

    constant, result = {}, []
    random = np.random.default_rng(0)
    stride = 7_919  # prime: rows of a batch lie apart, as those of a window
    for t in range(number):
        batch = []
        for i, ((kind, bound), target) in enumerate(zip(draws, step.inputs)):
            shape, dtype = target.shape, target.dtype
            if kind == "ids":
                ids = (t * shape[0] + np.arange(shape[0], dtype=dtype)) * stride % (bound or size)
                batch.append(jax.device_put(ids))
                continue
            if i not in constant:
                if kind == "integers":
                    value = random.integers(bound, size=shape, dtype=dtype)
                elif kind == "uniform":
                    value = random.random(shape, dtype)
                else:
                    value = random.standard_normal(shape, dtype)
                constant[i] = jax.device_put(value)
            batch.append(constant[i])
        result.append(batch)
    return jax.block_until_ready(result)
