"""Build backbones of keras-cv from its presets."""

import difflib
import functools
import inspect
import pathlib
import warnings

import tf_keras as keras

# The class of all; those of videos; those of point clouds.
_NOT_OF_IMAGES = ("Backbone", "VideoSwin", "CenterPillar")


def check_preset(preset: str) -> None:
    """Check that there is a preset of a name, without building it.

    Args:
      preset: name of a preset of images, or folder that holds one.

    Raises:
      ValueError: where there is none.
    """
    if _is_folder(preset):
        return
    names = sorted(presets())
    if preset not in names:
        close = difflib.get_close_matches(preset, names, 3, 0)
        raise ValueError(
            f"expected --backbone=keras_cv:PRESET of one of {len(names)} presets, or the folder of "
            f"one with its config.json, got {preset!r}: {', '.join(close)} are some of them"
        )


def preset_network(preset: str, load_weights: bool) -> keras.Model:
    """Build the backbone of a preset, which scales levels from 0 to 255 itself.

    keras-cv downloads the presets of its own from Kaggle, even without weights.

    Args:
      preset: as of `check_preset`.
      load_weights: whether it starts from the weights of the preset; else from random ones.

    Returns:
      Model from levels [B, H, W, 3] to maps [B, h, w, C].

    Raises:
      ValueError: where the preset cannot be had, or has no weights.
    """
    import keras_cv

    owner = keras_cv.models.Backbone if _is_folder(preset) else presets()[preset]
    options = {"load_weights": load_weights, "include_rescaling": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # tf_keras' about the way of keras-cv
            network = owner.from_preset(preset, **options)
    except Exception as error:  # of many types: no network, a server that is down, no weights
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected keras-cv to load its preset {preset!r}, got {reason}: try again where there "
            "is a network, or name the folder of a preset"
        ) from error
    # A plain functional model: all that keras-cv adds is for its own saving.
    return keras.Model(network.inputs, network.outputs, name=network.name)


@functools.cache
def presets() -> dict[str, type]:
    """List name -> class of all presets of keras-cv that take images."""
    import keras_cv

    classes = dict(inspect.getmembers(keras_cv.models, inspect.isclass))
    return {
        preset: found
        for name, found in classes.items()
        if name.endswith("Backbone") and not name.startswith(_NOT_OF_IMAGES)
        for preset in found.presets
    }


def _is_folder(preset: str) -> bool:
    return (pathlib.Path(preset) / "config.json").is_file()
