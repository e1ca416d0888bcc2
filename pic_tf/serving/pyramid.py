"""Give keras-cv's detectors a pretrained ResNet."""

import os

import tf_keras as keras

from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.serving.open_resnet import open_resnet

_STAGES = 4


def pyramid_backbone(path: str | os.PathLike) -> keras.Model:
    """Open a ResNet as keras-cv's detectors take one.

    Pyramid level l has one value for 2^l x 2^l pixels: P2 to P5 are the ends of stages 1 to 4
    behind the ImageNet stem.

    Args:
      path: as of `pic_tf.serving.open_resnet.open_resnet`.

    Returns:
      Model from images [B, H, W, 3] of levels from 0 to 255, as keras-cv has them, to the maps of
      P2 to P5, with the attribute `pyramid_level_inputs`: level -> name of a layer.

    Raises:
      ValueError: where there is none, another network, or one without P3 to P5.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, Section 4.
    """
    resnet = open_resnet(path).model
    if all(layer.name != "stem_pool" for layer in resnet.layers):
        raise ValueError(
            "expected a ResNet with --stem=imagenet, whose stages are the pyramid's levels 2 to 5, "
            f"got one with the stem of small images in {str(path)!r}: pretrain with the other stem"
        )
    images = keras.Input([None, None, 3], name="images")
    scaling = keras.layers.Rescaling(
        [1 / (255 * s) for s in STDDEV], [-m / s for m, s in zip(MEAN, STDDEV)], name="normalise"
    )
    ends = {layer.name.split("_")[0]: layer.output for layer in resnet.layers}  # the last of each
    levels = {f"P{stage + 1}": ends[f"stage{stage}"] for stage in range(1, _STAGES + 1)}
    maps = keras.Model(resnet.input, list(levels.values()), name="resnet")(scaling(images))
    # keras-cv looks its levels up among the layers, so each has one of its name.
    named = [keras.layers.Activation("linear", name=n)(m) for n, m in zip(levels, maps)]
    backbone = keras.Model(images, named, name="pyramid")
    backbone.pyramid_level_inputs = {name: name for name in levels}
    return backbone
