"""Name every variable of a compiled PIC model."""

from collections.abc import Iterator

import tensorflow as tf

from pic_tf.pic import PIC


def named_variables(model: PIC) -> Iterator[tuple[str, tf.Variable]]:
    """Yield every variable of a compiled model but the instance rows, with its path."""
    roots = {"backbone": model.backbone, "projection": model.projection}
    roots["optimizer"] = model.optimizer
    if model.backbone_optimizer:
        roots["backbone_optimizer"] = model.backbone_optimizer
    if model.probe:
        roots["probe"] = model.probe
    roots |= {f"metrics/{metric.name}": metric for metric in model.metrics}
    roots |= {"guard/skipped": model.skipped, "guard/last_skipped": model.last_skipped}
    yield from (named := dict(variables_of(roots))).items()
    # Optimizers of the old kind, as tensorflow-addons' are, keep their moments apart.
    seen = {id(variable) for variable in named.values()}
    for i, variable in enumerate(getattr(model.backbone_optimizer, "weights", [])):
        if id(variable) not in seen:
            yield f"backbone_optimizer/weights/{i}", variable


def variables_of(roots: dict[str, object]) -> Iterator[tuple[str, tf.Variable]]:
    """Yield every variable that the roots lead to, once, with its path."""
    seen = set()
    for root, trackable in roots.items():
        view, found = tf.train.TrackableView(trackable), [(root, trackable)]
        for path, child in found:  # breadth first
            if id(child) in seen:
                continue
            seen.add(id(child))
            if isinstance(child, tf.Variable):
                yield path, child
            else:
                children = view.children(child).items()
                found += [(f"{path}/{name}", next_child) for name, next_child in children]


def metric_variables(model: PIC) -> list[tf.Variable]:
    """List the variables of a model's running metrics."""
    return [variable for metric in model.metrics for variable in metric.variables]
