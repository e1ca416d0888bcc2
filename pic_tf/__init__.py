"""Pretrain vision backbones by parametric instance classification, in TensorFlow."""

import importlib.util
import os
import pathlib
import sys
from typing import Any

# tf.keras, keras-cv and TF Hub must all resolve to tf_keras, the Keras that tf.distribute supports.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TensorFlow's start-up messages would bury ours; its errors reach Python as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _route_to_tf_keras() -> None:
    """Do what TensorFlow would have done at its start, where it was imported before us."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or os.environ["TF_USE_LEGACY_KERAS"] not in ("1", "true", "True"):
        return
    loader = vars(tensorflow).get("keras")
    used = getattr(loader, "_tfll_initialized", True)  # then its Keras stays: PIC says so
    spec = importlib.util.find_spec("tf_keras.api._v2.keras")
    if not used and spec is not None:
        # `from tensorflow.keras import ...` looks for the folder `keras` here.
        tensorflow.__path__.insert(0, str(pathlib.Path(spec.origin).parents[1]))


_route_to_tf_keras()

__version__ = "0.1.0"

_PUBLIC = {
    "pretrain": "pic_tf.calls",
    "evaluate": "pic_tf.calls",
    "embed": "pic_tf.calls",
    "PIC": "pic_tf.pic",
    "LazySGD": "pic_tf.optim.lazy_sgd",
    "WarmupCosine": "pic_tf.optim.schedules",
    "InstanceClassifier": "pic_tf.instances.classifier",
    "SlidingWindow": "pic_tf.data.order",
    "resnet": "pic_tf.models.resnet",
    "distribute": "pic_tf.replicas.collectives",
    "export_backbone": "pic_tf.serving.saved_model",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import pic_tf` stays fast."""
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'pic_tf' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(_PUBLIC[name]), name)
