"""Find the variables behind an object."""

from collections.abc import Iterator

import tensorflow as tf


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
