"""A run that starts from given weights, its backbone frozen at first."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from pic_tf.models.resnet import resnet
from pic_tf.models.torch_weights import state_of
from pic_tf.optim.variables import variables_of
from pic_tf.runs import checkpoint_files
from pic_tf.serving.initial_weights import load_initial_weights
from pic_tf.settings import defaults
from tests.models.torch_states import random_state
from tests.short_runs import SMALL, assert_same_variables, run, signals_after

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")
STEPS = 23  # of an epoch


@pytest.fixture
def settings(tmp_path):
    """Two epochs, in the first of which the backbone is frozen."""
    names = state_of(resnet(18, "small", 4).weights)
    state = {name: array for name, array in random_state(18).items() if name in names}
    save_file(state, tmp_path / "in.safetensors")
    return dataclasses.replace(
        SMALL,
        epochs=2,
        freeze_backbone_epochs=1,
        initial_weights=str(tmp_path / "in.safetensors"),
        output_dir=str(tmp_path / "run"),
        knn_every=0,
        checkpoint_every=1,
        tensorboard=False,
    )


def backbone_at(output_dir, step: int) -> dict[str, np.ndarray]:
    """Every number of the network's weights, momentum and statistics at a step."""
    path = checkpoint_files.states(pathlib.Path(output_dir) / "checkpoints")[step]
    values = checkpoint_files.read_variables(path)
    return {name: x for name, x in values.items() if name.startswith(("backbone/", "projection/"))}


def test_the_backbone_begins_as_given_and_moves_after_its_first_epoch(settings):
    assert run(settings).finished
    first, last = (backbone_at(settings.output_dir, step) for step in (STEPS, 2 * STEPS))
    given = resnet(18, "small", 4)
    load_initial_weights(given, settings.initial_weights, "resnet18")
    for name, variable in variables_of({"backbone": given}):
        np.testing.assert_array_equal(first[name], variable.numpy(), err_msg=name)
        assert not np.array_equal(last[name], first[name]), name  # batch statistics too
    assert any(not np.array_equal(last[n], x) for n, x in first.items() if "projection" in n)
    card = json.loads((pathlib.Path(settings.output_dir) / "backbone/model_card.json").read_text())
    flags = card["training"]["flags"]
    assert flags["initial_weights"] == settings.initial_weights
    assert len(flags["initial_weights_sha256"]) == 64 and flags["freeze_backbone_epochs"] == 1
    # Other weights under the same name are those of another run.
    longer = dataclasses.replace(settings, initial_weights_sha256="")
    save_file({"x": np.zeros(1, np.float32)}, settings.initial_weights)
    with pytest.raises(
        ValueError, match=r"^expected the flags of the run .*initial_weights_sha256"
    ):
        run(longer)


@pytest.mark.slow
@pytest.mark.parametrize("step", [7, STEPS + 7])
def test_a_run_that_is_stopped_goes_on(settings, monkeypatch, tmp_path, step):
    assert run(settings).finished
    stopped = dataclasses.replace(settings, output_dir=str(tmp_path / "stopped"))
    signals_after(monkeypatch, step)
    assert run(stopped).step == step
    assert run(stopped).finished
    assert_same_variables(stopped.output_dir, settings.output_dir)


@pytest.mark.slow
def test_optimizers_of_their_own_count_frozen_steps(settings):
    """The rate of LARS is that of the step when the backbone begins to move."""
    lars = dataclasses.replace(settings, optimizer="lars")
    assert run(lars).finished
    path = checkpoint_files.states(pathlib.Path(lars.output_dir) / "checkpoints")[2 * STEPS]
    values = checkpoint_files.read_variables(path)
    assert values["backbone_optimizer/_iterations"] == 2 * STEPS


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"freeze_backbone_epochs": 2},
            r"expected --freeze_backbone_epochs below --epochs \(2\), got",
        ),
        ({"freeze_backbone_epochs": -1}, r"expected --freeze_backbone_epochs >= 0, got -1"),
        (
            {"head": "none"},
            r"expected a --head that learns while the backbone is frozen .*got none",
        ),
    ],
)
def test_wrong_settings_get_one_sentence(settings, changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        defaults.resolve(dataclasses.replace(settings, **changes), 1500)
