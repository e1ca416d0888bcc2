"""Name every variable of a compiled model."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.optim.variables import variables_of


def named_variables(model: GuardedModel) -> Iterator[tuple[str, tf.Variable]]:
    """Yield every variable of a compiled model but the instance rows, with its path."""
    roots = {"backbone": model.backbone, "projection": model.projection}
    roots["optimizer"] = model.optimizer
    if model.backbone_optimizer:
        roots["backbone_optimizer"] = model.backbone_optimizer
    if model.probe:
        roots["probe"] = model.probe
    roots |= model.own_state
    roots |= {f"metrics/{metric.name}": metric for metric in model.metrics}
    roots |= {"guard/skipped": model.skipped, "guard/last_skipped": model.last_skipped}
    yield from (named := dict(variables_of(roots))).items()
    # Optimizers of the old kind, as tensorflow-addons' are, keep their moments apart.
    seen = {id(variable) for variable in named.values()}
    for i, variable in enumerate(getattr(model.backbone_optimizer, "weights", [])):
        if id(variable) not in seen:
            yield f"backbone_optimizer/weights/{i}", variable


def metric_variables(model: GuardedModel) -> list[tf.Variable]:
    """List the variables of a model's running metrics."""
    return [variable for metric in model.metrics for variable in metric.variables]


def check_shapes(
    values: dict[str, np.ndarray], variables: Iterable[tuple[str, tf.Variable]]
) -> None:
    """Raise ValueError for a value of another shape than its variable, KeyError for none."""
    for name, variable in variables:
        if values[name].shape != tuple(variable.shape):
            raise ValueError(f"{name} {list(values[name].shape)} instead of {list(variable.shape)}")


def assign(values: dict[str, np.ndarray], variables: Iterable[tuple[str, tf.Variable]]) -> None:
    """Give each variable the value of its name."""
    for name, variable in variables:
        variable.assign(values[name])
