"""ResNets against the published parameter counts and shapes."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import resnet

# Published counts with a classifier of 1,000 classes, (features + 1) x 1000 of them.
PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameter_counts(depth):
    model = resnet(depth)
    features = model.output_shape[-1]
    assert features == (2048 if depth >= 50 else 512)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == PUBLISHED[depth] - (features + 1) * 1000


def test_shapes_of_resnet50_at_224():
    model = resnet(50)
    assert model(tf.zeros([2, 224, 224, 3])).shape == (2, 2048)
    sizes = {
        "stem_conv": 112,
        "stem_pool": 56,
        "stage1_block3_relu3": 56,
        "stage2_block4_relu3": 28,
    }
    sizes |= {"stage3_block6_relu3": 14, "stage4_block3_relu3": 7}
    import tf_keras as keras

    outputs = keras.Model(model.input, [model.get_layer(name).output for name in sizes])(
        tf.zeros([1, 224, 224, 3])
    )
    assert [x.shape[1] for x in outputs] == list(sizes.values())


def test_small_stem_keeps_the_resolution_and_width_scales():
    model = resnet(18, "small", 16)
    assert model.get_layer("stem_conv").strides == (1, 1)
    assert model(tf.zeros([1, 32, 32, 3])).shape == (1, 128)
    assert model(tf.zeros([1, 8, 8, 3])).shape == (1, 128)


def test_stride_is_in_the_3x3_and_blocks_start_as_identity():
    model = resnet(50)
    assert model.get_layer("stage2_block1_1_conv").strides == (1, 1)
    assert model.get_layer("stage2_block1_2_conv").strides == (2, 2)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(1, blocks + 1):
            assert not np.any(model.get_layer(f"stage{stage}_block{block}_3_bn").gamma.numpy())
    assert np.all(model.get_layer("stage1_block1_1_bn").gamma.numpy() == 1)


def test_initialisation():
    kernel = resnet(50).get_layer("stage4_block2_2_conv").kernel.numpy()  # 3 x 3 x 512 x 512
    # He by fan-out: variance 2 / (9 x 512); 2.4 million draws, so 1 % is more than 10 sigma.
    np.testing.assert_allclose(kernel.var(), 2 / (9 * 512), rtol=0.01)
    hidden = projection_head().get_layer("hidden").kernel.numpy()
    assert np.abs(hidden).max() <= 2048**-0.5
    np.testing.assert_allclose(
        hidden.var(), 1 / (3 * 2048), rtol=0.01
    )  # of U(-a, a), a = 2048^-1/2


@pytest.mark.parametrize(
    "kind, count",
    [("mlp", 2048 * 2048 + 2048 + 2048 * 128 + 128), ("linear", 2048 * 128 + 128), ("none", 0)],
)
def test_heads(kind, count):
    head = projection_head(kind)
    assert head.count_params() == count
    assert head(tf.ones([3, 2048])).shape == (3, 2048 if kind == "none" else 128)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: resnet(20), "expected depth to be one of 18, 34, 50, 101, 152, got 20"),
        (lambda: resnet(18, "tiny"), "expected stem to be imagenet or small"),
        (lambda: resnet(18, width=0), "expected width >= 1"),
        (lambda: projection_head("mlp3"), "expected head to be one of"),
    ],
)
def test_wrong_arguments(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
