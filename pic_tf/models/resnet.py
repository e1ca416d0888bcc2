"""ResNet v1.5 backbones: image -> features."""

from types import ModuleType

import tf_keras

# depth: (blocks in each of the four stages, whether they are bottleneck blocks)
STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
DEPTHS = tuple(STAGES)
_EXPANSION = 4  # output channels of a bottleneck block for each inner channel


def resnet(
    depth: int = 50,
    stem: str = "imagenet",
    width: int = 64,
    keras: ModuleType = tf_keras,
    channels: int = 3,
) -> tf_keras.Model:
    """Build a residual network that ends in global average pooling.

    Convolutions have He initialisation by fan-out, the last batch normalisation of a block starts
    with gamma 0 (each block starts as the identity), and bottleneck blocks stride in their 3 x 3
    convolution (v1.5).

    Args:
      depth: 18, 34, 50, 101 or 152.
      stem: "imagenet" (7 x 7 stride 2, then 3 x 3 max pooling stride 2) or "small" (3 x 3 stride 1,
        for images of about 8 to 64 pixels).
      width: channels of the first stage; 64 is the published network.
      keras: the Keras to build the network with: `tf_keras`, or Keras 3 for a model that needs
        nothing of this package.
      channels: channels of the images.

    Returns:
      Model of that Keras from float32 [B, H, W, channels], any H and W, normalised by channel, to
      float32 features [B, C], C = 8 width (depths 18 and 34) or 32 width.

    Raises:
      ValueError: for another depth or stem, or a width or channels below 1.

    Source: He et al. 2015 (https://arxiv.org/abs/1512.03385); v1.5 and the zero gamma: Goyal et al.
    2017 (https://arxiv.org/abs/1706.02677), Section 5.1.
    """
    if depth not in STAGES:
        raise ValueError(f"expected depth to be one of {', '.join(map(str, DEPTHS))}, got {depth}")
    if stem not in ("imagenet", "small"):
        raise ValueError(f"expected stem to be imagenet or small, got {stem!r}")
    if width < 1:
        raise ValueError(f"expected width >= 1, got {width}")
    if channels < 1:
        raise ValueError(f"expected channels >= 1, got {channels}")
    stages, bottleneck = STAGES[depth]
    block = _bottleneck_block if bottleneck else _basic_block

    images = keras.Input([None, None, channels], name="images")
    if stem == "imagenet":
        x = _relu(keras, _conv(keras, images, width, 7, 2, "stem"), "stem_relu")
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = _relu(keras, _conv(keras, images, width, 3, 1, "stem"), "stem_relu")
    for stage, blocks in enumerate(stages):
        for b in range(blocks):
            stride = 2 if stage > 0 and b == 0 else 1
            x = block(keras, x, width * 2**stage, stride, f"stage{stage + 1}_block{b + 1}")
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name=f"resnet{depth}")


def _basic_block(keras: ModuleType, x, channels: int, stride: int, name: str):
    """Add two 3 x 3 convolutions to the shortcut."""
    shortcut = _shortcut(keras, x, channels, stride, name)
    y = _relu(keras, _conv(keras, x, channels, 3, stride, f"{name}_1"), f"{name}_relu1")
    y = _conv(keras, y, channels, 3, 1, f"{name}_2", gamma="zeros")
    return _relu(keras, keras.layers.Add(name=f"{name}_add")([shortcut, y]), f"{name}_relu2")


def _bottleneck_block(keras: ModuleType, x, channels: int, stride: int, name: str):
    """Add a 1 x 1, a 3 x 3 and a 1 x 1 convolution to the shortcut."""
    shortcut = _shortcut(keras, x, channels * _EXPANSION, stride, name)
    y = _relu(keras, _conv(keras, x, channels, 1, 1, f"{name}_1"), f"{name}_relu1")
    y = _relu(keras, _conv(keras, y, channels, 3, stride, f"{name}_2"), f"{name}_relu2")
    y = _conv(keras, y, channels * _EXPANSION, 1, 1, f"{name}_3", gamma="zeros")
    return _relu(keras, keras.layers.Add(name=f"{name}_add")([shortcut, y]), f"{name}_relu3")


def _shortcut(keras: ModuleType, x, channels: int, stride: int, name: str):
    """Pass x on, through a 1 x 1 convolution where the shape changes."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    return _conv(keras, x, channels, 1, stride, f"{name}_shortcut")


def _conv(
    keras: ModuleType, x, channels: int, size: int, stride: int, name: str, gamma: str = "ones"
):
    """Add a convolution and batch normalisation."""
    # Padding by size // 2 on every side, as in the published networks. TensorFlow's "same" does so
    # at stride 1, but pads a strided convolution on the far side only: here it is explicit.
    padding = "same"
    if size > 1 and stride > 1:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    options = {"use_bias": False, "kernel_initializer": he, "name": f"{name}_conv"}
    x = keras.layers.Conv2D(channels, size, stride, padding, **options)(x)
    # Momentum 0.9 and epsilon 1e-5 are the published networks'; Keras' own are 0.99 and 1e-3.
    norm = keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_bn"
    )
    return norm(x)


def _relu(keras: ModuleType, x, name: str):
    return keras.layers.ReLU(name=name)(x)
