"""Backbone and head found in checkpoints, and what does not fit refused."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.models.resnet import resnet
from pic_tf.models.torch_checkpoints import parts_of, unnested
from pic_tf.models.torch_weights import backbone_of, head_of, load_state, state_of
from tests.models.torch_states import checkpoint, heads, random_state


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize(
    "prefix", ["", "module.", "encoder.", "module.encoder.", "backbone.", "model.backbone.body."]
)
def test_prefixes(prefix):
    state = random_state(18)
    fc = {
        f"{prefix}fc.weight": np.ones([5, 32], np.float32),
        f"{prefix}fc.bias": np.ones([5], np.float32),
    }
    parts = parts_of(checkpoint(prefix, state, **fc))
    assert same(parts.backbone, {n: a for n, a in state.items() if "num_batches" not in n})
    assert parts.head.keys() == {"fc.weight", "fc.bias"} and parts.passed_over == ()


@pytest.mark.parametrize(
    "nest", [lambda x: x, lambda x: {"state_dict": x, "epoch": 3}, lambda x: {"model": x}]
)
def test_nesting(nest):
    state = random_state(18)
    assert unnested(nest(state)) is state


@pytest.mark.parametrize("mlp", [True, False])
def test_checkpoint_of_the_authors(mlp):
    state, (head, embed) = random_state(18), heads(mlp)
    rows = np.ones([10, 5], np.float32)
    arrays = checkpoint("module.encoder.", state | head, **{"module.sim_matrix": rows})
    parts = parts_of(
        unnested({"opt": None, "model": arrays, "optimizer": {}, "scheduler": {}, "epoch": 200})
    )
    assert same(parts.backbone, {n: a for n, a in state.items() if "num_batches" not in n})
    assert same(parts.head, head)
    assert parts.passed_over == ("module.sim_matrix",)
    features = np.random.default_rng(3).normal(size=(4, 32)).astype(np.float32)
    # float32 sums of 32 products of numbers near 1.
    np.testing.assert_allclose(head_of(parts.head)(features), embed(features), rtol=1e-4, atol=1e-4)


def test_two_networks_need_a_prefix():
    one, other, (head, _) = random_state(18), random_state(18, seed=1), heads(True)
    names = {"fc1": "fc.0", "fc2": "fc.2"}  # MoCo v2
    head2 = {f"{names[name[:3]]}{name[3:]}": array for name, array in head.items()}
    arrays = checkpoint(
        "module.encoder_q.", one | head2, **checkpoint("module.encoder_k.", other | head2)
    )
    with pytest.raises(
        ValueError, match=r"'module\.encoder_k\.' or 'module\.encoder_q\.', got None: name one"
    ):
        parts_of(arrays)
    with pytest.raises(ValueError, match=r"got 'module\.': name one"):
        parts_of(arrays, "module.")
    parts = parts_of(arrays, "module.encoder_q.")
    assert np.array_equal(parts.backbone["conv1.weight"], one["conv1.weight"])
    assert same(parts.head, head)
    assert set(parts.passed_over) == {
        name for name in arrays if name.startswith("module.encoder_k.")
    }


def test_head_of_other_layers_is_passed_over():
    norm = {"fc.0.weight": np.ones([6, 32], np.float32), "fc.1.weight": np.ones([6], np.float32)}
    parts = parts_of(random_state(18) | norm)
    assert parts.head == {} and set(parts.passed_over) == norm.keys()


def changed(**changes):
    """A ResNet-18 with arrays replaced, or taken out by None; __ in a name stands for a dot."""
    state = random_state(18) | {name.replace("__", "."): array for name, array in changes.items()}
    return {name: array for name, array in state.items() if array is not None}


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (changed(layer3__1__bn2__weight=None), "expected layer3.1.bn2.weight, got none: only plain ResNets"),
        (changed(layer1__0__bn1__bias=None, bn1__bias=None), r"expected bn1.bias, got none \(and 1 more like it\)"),
        (changed(layer1__0__se__fc1__weight=zeros(4)), "expected a ResNet's arrays only, got layer1.0.se.fc1.weight"),
        (changed(layer2__0__conv1__weight=zeros(8, 4, 1, 1)), r"layer2.0.conv1.weight \[8, 4, 3, 3\], got \[8, 4, 1, "),
        (changed(bn1__weight=zeros(5)), r"expected bn1.weight \[4\], got \[5\]"),
        (changed(bn1__weight=zeros(4, dtype=np.int8)), "expected bn1.weight of floats, got int8: quantised"),
        (changed(bn1__weight=np.float32([1, 1, np.nan, 1])), "expected finite numbers in bn1.weight, got NaN"),
        (changed(conv1__weight=None, conv1__0__weight=zeros(4, 3, 3, 3)), "expected conv1.weight, got none"),
        (changed(conv1__weight=zeros(4, 1, 7, 7)), r"expected conv1.weight \[C, 3, 7, 7\] or .* got \[4, 1, 7, 7\]"),
        (changed(layer2__2__conv1__weight=zeros(1)), "got 2-3-2-2 basic blocks in layer1 to layer4"),
        ({"patch_embed.weight": zeros(1)}, "expected the weights of a ResNet .* such as 'patch_embed.weight'"),
        ({}, "expected the weights of a ResNet .* got 0 arrays such as 'none'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(state, sentence):
    with pytest.raises(ValueError, match=sentence):
        backbone_of(parts_of(state).backbone)


def test_a_state_that_does_not_fit_changes_nothing():
    model = resnet(18, "small", 4)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=r"expected layer4\.1\.bn2\.running_var"):
        load_state(model.weights, changed(layer4__1__bn2__running_var=zeros(3)))
    for one, other in zip(before, model.weights):
        np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: unnested([1]), "expected a checkpoint with arrays by name, got list"),
        (lambda: unnested({"epoch": 3}), "expected arrays by name, .* got 'epoch' of type int"),
        (lambda: unnested({"model": {"opt": None}}), "got 'opt' of type NoneType"),
        (
            lambda: state_of([tf.Variable(1.0, name="conv2d_7/kernel")]),
            "expected the variables of a ResNet of pic_tf",
        ),
        (lambda: head_of({}), "expected a head of fc.bias, fc.weight, got none"),
        (
            lambda: head_of(heads(True)[0] | {"fc2.weight": zeros(5, 7)}),
            r"fc2.weight \[5, 6\], got \[5, 7\]",
        ),
        (
            lambda: head_of(heads(False)[0] | {"fc.weight": zeros(5, 7, 1, 1)}),
            r"fc.weight \[H, C\], got \[5, 7, 1, 1\]",
        ),
    ],
)
def test_wrong_arguments(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
