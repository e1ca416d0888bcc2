"""Convert a backbone: PyTorch checkpoints in, PyTorch, Keras 3, SavedModels and graphs out.

    python tools/convert_weights.py --input=RUN/backbone --output=resnet50.safetensors
    python tools/convert_weights.py --input=RUN/backbone --output=resnet50.keras
    python tools/convert_weights.py --input=resnet50.pth --output=backbone
    python tools/convert_weights.py --input=RUN/backbone --output=backbone.tflite

--input:
    FOLDER              a backbone that pic_tf.train or pic_tf.export wrote, or a finished run
    FILE.safetensors    names of torchvision or timm
    FILE.pth .pt .tar   the same, by torch.save; needs PyTorch. Nothing in the file can run
    FILE.keras          a ResNet of this package, of tf_keras or Keras 3

Prefixes (module., module.encoder., backbone. ...) and the dictionary around the weights
(state_dict, model) are found; where a checkpoint holds two networks, --prefix says which. Only
plain ResNets of depth 18, 34, 50, 101 and 152 fit, of any width. Stride in the 3 x 3 convolution
(v1.5, as torchvision and timm) and ImageNet's channel means are taken for granted, because the
weights do not tell. Classifiers and instance weights are passed over; --head_output keeps a head.

--output:
    FILE.safetensors    torchvision's names without the classifier; images normalised by ImageNet's
    FILE.pth            channel means (0.485, 0.456, 0.406) and deviations (0.229, 0.224, 0.225)
    FILE.pkl            detectron2's names, for MODEL.WEIGHTS of its configurations; images as above
    FILE.keras          for keras.saving.load_model of Keras 3; images in [0, 1], normalised inside
    FOLDER              a SavedModel for hub.KerasLayer and pic_tf.evaluate; images likewise
    FILE.tflite         a graph for LiteRT (TensorFlow Lite); images likewise, any network of an
    FILE.onnx           export; ONNX needs tf2onnx

Exit codes: 0 done; 1 wrong input, or an output that cannot be written, which leaves what was there
as it was.
"""

import pathlib

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.serving.convert import convert


def main() -> None:
    values = flags.FLAGS
    head = pathlib.Path(values.head_output) if values.head_output else None
    source, output = pathlib.Path(values.input), pathlib.Path(values.output)
    size, images = values.image_size, values.representative_images
    print(*convert(source, output, values.prefix, size, head, images), sep="\n")


def define_flags() -> None:
    flags.DEFINE_string(
        "input",
        None,
        "Backbone to convert: the folder of an export or of a finished run, FILE.safetensors, "
        "FILE.pth or FILE.keras.",
        required=True,
    )
    flags.DEFINE_string(
        "output",
        None,
        "File or folder to write: FILE.safetensors, FILE.pth, FILE.pkl, FILE.keras, FILE.tflite, "
        "FILE.onnx or a folder.",
        required=True,
    )
    flags.DEFINE_string(
        "head_output",
        "",
        "FILE.safetensors to write the projection head to. The default '' passes over a head in "
        "the input.",
    )
    flags.DEFINE_string(
        "prefix",
        None,
        "Beginning of the names of the backbone's weights in a checkpoint of several networks. "
        "By default the only network is found.",
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels, >= 1, of the images that a .keras, .tflite or .onnx file or a SavedModel "
        "takes. The default None takes any.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "representative_images",
        "",
        "Images, in the forms of --dataset of pic_tf.train, of which 200 tell the ranges of 8-bit "
        "numbers in a .tflite file. The default '' writes float32.",
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
