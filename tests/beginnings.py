"""A model that is traced once and begins anew several times."""

from collections.abc import Iterator

import tf_keras as keras

from pic_tf.optim.variables import variables_of


def beginnings(model: keras.Model, count: int) -> Iterator[keras.Model]:
    """Yield the model as it is now, so many times."""
    begun = [(variable, variable.numpy()) for _, variable in variables_of({"model": model})]
    for _ in range(count):
        for variable, value in begun:
            variable.assign(value)
        yield model
