"""Projection head: features -> embedding."""

import tf_keras as keras

HEADS = ("mlp", "mlp_bn", "linear", "none")


def projection_head(
    kind: str = "mlp", feature_dim: int = 2048, hidden_dim: int = 2048, embedding_dim: int = 128
) -> keras.Model:
    """Build the head h -> z.

        mlp:     z = W2 relu(W1 h + b1) + b2
        mlp_bn:  z = BN(W2 relu(BN(W1 h + b1)) + b2)
        linear:  z = W h + b
        none:    z = h

    The normalised head is not in the paper; it makes short trainings faster: it takes off the part
    that embeddings of a young network have in common.

    Args:
      kind: name of the equation, "mlp", "mlp_bn", "linear" or "none".
      feature_dim: C, size of the features.
      hidden_dim: width of the hidden layer of the mlp heads.
      embedding_dim: D, size of the embedding; not used by "none", whose D is C.

    Returns:
      Keras model float [B, C] -> float32 [B, D].

    Raises:
      ValueError: for another kind.

    Source: paper, Section 2.1 and Table 1 (two-layer FC head, no batch normalisation). Normalised
    heads: SimSiam (https://arxiv.org/abs/2011.10566), Section 3; MoCo v3
    (https://arxiv.org/abs/2104.02057), Section 3.
    """
    if kind not in HEADS:
        raise ValueError(f"expected head to be one of {', '.join(HEADS)}, got {kind!r}")
    features = keras.Input([feature_dim], name="features")
    x = features
    if kind == "mlp":
        x = keras.layers.Dense(hidden_dim, "relu", kernel_initializer=_uniform(), name="hidden")(x)
    if kind == "mlp_bn":
        x = keras.layers.Dense(hidden_dim, kernel_initializer=_uniform(), name="hidden")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="hidden_bn")(x)
        x = keras.layers.ReLU(name="hidden_relu")(x)
    if kind != "none":
        x = keras.layers.Dense(embedding_dim, kernel_initializer=_uniform(), name="embedding")(x)
    if kind == "mlp_bn":
        norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, center=False, scale=False, name="embedding_bn"
        )
        x = norm(x)
    return keras.Model(features, x, name="projection")


def feature_dim(backbone: keras.Model) -> int:
    """Read the number of features C of a backbone off its output shape.

    Raises:
      ValueError: for a backbone whose output is not [B, C] or [B, h, w, C], or whose C is unknown.
      TypeError: for a model of Keras 3.
    """
    if not isinstance(backbone, keras.layers.Layer):
        kind = type(backbone)
        raise TypeError(
            f"expected a backbone of tf_keras, got {kind.__module__}.{kind.__qualname__}: import "
            "pic_tf before tensorflow and keras_cv, and tf_keras instead of keras"
        )
    shape = getattr(backbone, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) not in (2, 4) or shape[-1] is None:
        raise ValueError(
            f"expected a backbone with one output [B, C] or [B, h, w, C] of known C, got {shape}: "
            "build it with keras.Input, or wrap it in a keras.Sequential with an input shape"
        )
    return shape[-1]


def _uniform() -> keras.initializers.Initializer:
    """Make U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), with which the recipe was tuned."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
