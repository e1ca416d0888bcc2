"""The definition of a ResNet in NumPy, under torchvision's names, for tests of converted
weights.
"""

import numpy as np

# From torchvision's documentation: blocks in the four stages, convolutions in a block.
BLOCKS = {
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
    101: ((3, 4, 23, 3), 3),
}
BLOCKS |= {152: ((3, 8, 36, 3), 3)}
MEAN, STDDEV = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def random_state(depth, stem="small", width=4, seed=0):
    """All arrays of a torchvision ResNet without a classifier, none of them 0 or 1 as in a new
    network.
    """
    rng, state = np.random.default_rng(seed), {}

    def conv_norm(conv, norm, inputs, outputs, size):
        scale = (2 / (inputs * size * size)) ** 0.5
        state[f"{conv}.weight"] = rng.normal(
            scale=scale, size=(outputs, inputs, size, size)
        ).astype(np.float32)
        for part, low, high in (("weight", 0.5, 1.2), ("bias", -0.5, 0.5), ("running_mean", -1, 1)):
            state[f"{norm}.{part}"] = rng.uniform(low, high, outputs).astype(np.float32)
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2, outputs).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    stages, convs = BLOCKS[depth]
    conv_norm("conv1", "bn1", 3, width, 7 if stem == "imagenet" else 3)
    channels = width
    for stage, blocks in enumerate(stages):
        inner = width * 2**stage
        outer = inner * (4 if convs == 3 else 1)
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            sizes = [(channels, inner, 1), (inner, inner, 3), (inner, outer, 1)]
            if convs == 2:
                sizes = [(channels, inner, 3), (inner, inner, 3)]
            for j, (inputs, outputs, size) in enumerate(sizes, 1):
                conv_norm(f"{name}.conv{j}", f"{name}.bn{j}", inputs, outputs, size)
            if block == 0 and (stage > 0 or channels != outer):
                conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", channels, outer, 1)
            channels = outer
    return state


def numpy_features(state, images):
    """A ResNet v1.5 by its definition, float64, channels first: images [B, 3, H, W] -> [B, C]."""

    def conv(x, name, stride):
        weight = state[f"{name}.weight"].astype(np.float64)
        size = weight.shape[-1]
        x = np.pad(x, [(0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[
            :, :, ::stride, ::stride
        ]
        return np.einsum("bihwyx,oiyx->bohw", windows, weight, optimize=True)

    def norm(x, name):
        gamma, beta, mean, var = (
            state[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    imagenet = state["conv1.weight"].shape[-1] == 7
    x = np.maximum(norm(conv(images, "conv1", 2 if imagenet else 1), "bn1"), 0)
    if imagenet:
        x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max(
            (-2, -1)
        )
    convs = 3 if "layer1.0.conv3.weight" in state else 2
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = x
            for j in range(1, convs + 1):
                # v1.5: the first 3 x 3 convolution strides.
                y = norm(
                    conv(y, f"{name}.conv{j}", stride if j == convs - 1 else 1), f"{name}.bn{j}"
                )
                y = np.maximum(y, 0) if j < convs else y
            if f"{name}.downsample.0.weight" in state:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x, block = np.maximum(x + y, 0), block + 1
    return x.mean((2, 3))


def assert_same_features(got, expected):
    # 1e-4 of the largest feature; float32 and another order of sums differ by 1e-6 at most over 152
    # layers.
    assert np.abs(expected).max() > 0 and np.abs(expected).std() > 0.01 * np.abs(expected).max()
    assert np.abs(np.asarray(got) - expected).max() <= 1e-4 * np.abs(expected).max()


def heads(mlp):
    """A head as PIC's authors keep it, and its embedding of features h."""
    rng = np.random.default_rng(2)
    w1, b1, w2, b2 = (
        rng.normal(size=size).astype(np.float32) for size in ([6, 32], [6], [5, 6], [5])
    )
    if mlp:
        arrays = {"fc1.weight": w1, "fc1.bias": b1, "fc2.weight": w2, "fc2.bias": b2}
        return arrays, lambda h: np.maximum(h @ w1.T + b1, 0) @ w2.T + b2
    return {"fc.weight": w1, "fc.bias": b1}, lambda h: h @ w1.T + b1


def checkpoint(prefix, backbone, **beside):
    return {prefix + name: array for name, array in backbone.items()} | beside
