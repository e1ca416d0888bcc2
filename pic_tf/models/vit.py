"""Vision transformers: images -> features."""

import re

import tensorflow as tf
import tf_keras as keras

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_base": (768, 12)}  # (dim, heads)
GRID = 14  # positions along a side of the published networks, 224 pixels in patches of 16
_NAME = re.compile(r"(vit_tiny|vit_small|vit_base)(?:_patch(\d{1,3}))?")
_DEPTH, _EPSILON = 12, 1e-6


def parse_vit(name: str) -> tuple[int, int, int]:
    """Read (dim, heads, patch) off "vit_tiny", "vit_small" or "vit_base", with "_patchN" behind.

    Raises:
      ValueError: for another name.
    """
    found = _NAME.fullmatch(name)
    if not found or int(found[2] or 16) < 1:
        raise ValueError(
            f"expected {', '.join(SIZES)} or such a name with _patchN behind, as vit_tiny_patch4, "
            f"got {name!r}: name one of them"
        )
    return *SIZES[found[1]], int(found[2] or 16)


def vit(
    dim: int = 192,
    heads: int = 3,
    patch: int = 16,
    depth: int = _DEPTH,
    grid: int = GRID,
    channels: int = 3,
) -> keras.Model:
    """Build a transformer of pre-normalised blocks over the patches of an image.

        t_0 = [class; patches W + b] + positions
        t   <- t + attention(norm(t)),   t <- t + W2 gelu(W1 norm(t) + b1) + b2
        features = norm(t)[class]

    Args:
      dim: C, size of a token.
      heads: parts of the attention.
      patch: side of a patch in pixels.
      depth: blocks.
      grid: positions along a side; for images of another number of patches they are interpolated.
      channels: channels of the images.

    Returns:
      Model from float32 [B, H, W, channels], normalised by channel, H and W of at least `patch`, to
      float32 features [B, C].

    Source: Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929); sizes of DeiT
    (https://arxiv.org/abs/2012.12877), Table 1; names as in timm.
    """
    images = keras.Input([None, None, channels], name="images")
    embed = keras.layers.Conv2D(
        dim, patch, patch, kernel_initializer=_init(), name="patch_embed_proj"
    )
    tokens = ClassAndPositions(grid, name="tokens")(embed(images))
    for i in range(depth):
        name = f"blocks_{i}"
        x = keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm1")(tokens)
        x = keras.layers.Dense(3 * dim, kernel_initializer=_init(), name=f"{name}_attn_qkv")(x)
        x = Attention(heads, name=f"{name}_attn")(x)
        x = keras.layers.Dense(dim, kernel_initializer=_init(), name=f"{name}_attn_proj")(x)
        tokens = keras.layers.Add(name=f"{name}_add1")([tokens, x])
        x = keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm2")(tokens)
        x = keras.layers.Dense(4 * dim, "gelu", kernel_initializer=_init(), name=f"{name}_mlp_fc1")(
            x
        )
        x = keras.layers.Dense(dim, kernel_initializer=_init(), name=f"{name}_mlp_fc2")(x)
        tokens = keras.layers.Add(name=f"{name}_add2")([tokens, x])
    x = keras.layers.LayerNormalization(epsilon=_EPSILON, name="norm")(tokens)
    return keras.Model(images, keras.layers.Lambda(_first, name="features")(x), name="vit")


def _init() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.utils.register_keras_serializable("pic_tf")
def _first(tokens: tf.Tensor) -> tf.Tensor:
    """[B, 1 + n, C] -> [B, C]."""
    return tokens[:, 0]


@keras.utils.register_keras_serializable("pic_tf")
class ClassAndPositions(keras.layers.Layer):
    """Put the class token before the patches, and add a position to each.

    Maps [B, h, w, C] to [B, 1 + h w, C].

    Args:
      grid: positions along a side; those of another number of patches are interpolated.
      **kwargs: as of any layer.
    """

    def __init__(self, grid: int, **kwargs):
        super().__init__(**kwargs)
        self.grid = grid

    def build(self, shape: tf.TensorShape) -> None:
        c, positions = shape[-1], 1 + self.grid**2
        self.cls_token = self.add_weight("cls_token", [1, 1, c], initializer=_init())
        self.pos_embed = self.add_weight("pos_embed", [1, positions, c], initializer=_init())

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        count, height, width = (tf.shape(patches)[i] for i in range(3))
        c, dtype = patches.shape[-1], patches.dtype
        positions = tf.cast(tf.identity(self.pos_embed), tf.float32)
        of_class, of_patches = positions[:, :1], positions[:, 1:]
        of_patches = tf.reshape(of_patches, [1, self.grid, self.grid, c])
        if patches.shape[1:3] != [self.grid, self.grid]:
            sides = [height, width]
            of_patches = tf.image.resize(of_patches, sides, "bicubic", antialias=True)
        patches = tf.reshape(patches + tf.cast(of_patches, dtype), [count, height * width, c])
        first = tf.cast(self.cls_token, dtype) + tf.cast(of_class, dtype)
        return tf.concat([tf.repeat(first, count, axis=0), patches], axis=1)

    def get_config(self) -> dict:
        return super().get_config() | {"grid": self.grid}


@keras.utils.register_keras_serializable("pic_tf")
class Attention(keras.layers.Layer):
    """Mix tokens: softmax(Q K^T / sqrt(C / heads)) V in each head, of [Q, K, V] [B, n, 3 C].

    Args:
      heads: number of heads.
      **kwargs: as of any layer.
    """

    def __init__(self, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, qkv: tf.Tensor) -> tf.Tensor:
        count, tokens, size = tf.shape(qkv)[0], tf.shape(qkv)[1], qkv.shape[-1] // 3
        qkv = tf.reshape(qkv, [count, tokens, 3, self.heads, size // self.heads])
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))
        scale = tf.cast((size // self.heads) ** -0.5, qkv.dtype)
        weights = tf.nn.softmax(tf.matmul(query * scale, key, transpose_b=True))
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return tf.reshape(mixed, [count, tokens, size])

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads}
