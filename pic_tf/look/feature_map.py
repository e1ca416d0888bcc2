"""Draw features of images as points of a plane, coloured by class.

    python -m pic_tf.look.feature_map --model=RUN --dataset=FOLDER --output=map.png
    python -m pic_tf.look.feature_map --model=RUN --dataset=FOLDER --method=pca --images=5000 --output=map.png

Held-out images are drawn where there are some, otherwise training images; map.csv beside the picture has every point.
"""

import dataclasses
import functools
import pathlib
import warnings

import matplotlib
import numpy as np

import pic_tf.files.quiet  # noqa: F401
from pic_tf.data.sources.source import Source
from pic_tf.files import command_line
from pic_tf.files.replaced import replaced
from pic_tf.look.neighbour_tables import write_csv
from pic_tf.look.session import open_subject
from pic_tf.settings import flag_files
from pic_tf.settings.check import check_ranges
from pic_tf.settings.help import help_text
from pic_tf.settings.setting import setting

METHODS = ("tsne", "pca")
COLUMNS = ("id", "file", "class", "x", "y")
_FEWEST, _MOST = 4, 20_000  # images
_PERPLEXITY = 30.0  # t-SNE's usual one; a third of the images where these are few
_MOST_NAMED = 20  # classes in a legend
_DPI = 130


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a map; None means "as in pretraining"."""

    model: str = setting(
        "runs/pic", "a SavedModel that pic_tf exported, or the folder of a finished run; 'pixels' for raw pixels"
    )
    dataset: str = setting(
        "", "images in the forms of pic_tf.train, a folder with train and val inside for one; '' for those of the run"
    )
    eval_dataset: str = setting("", "images to draw, in the same forms; '' for those of --dataset")
    method: str = setting(
        "tsne", "how features become points: t-SNE, or their two principal components", choices=METHODS
    )
    images: int = setting(2000, f"at most so many images, drawn by --seed; {_FEWEST} to {_MOST}")
    seed: int = setting(0, "seed of the draw and of t-SNE, >= 0", limit="x >= 0")
    output: str = setting("map.png", "PNG file; the CSV file beside it has the same name")
    image_size: int | None = setting(
        None, "side of a view in pixels; default that of pretraining (pixels: 32)", limit="1 <= x <= 8192"
    )
    eval_crop: float | None = setting(
        None, "side of the central crop, share of the short side; default that of pretraining", limit="0 < x <= 1"
    )
    max_broken: float = setting(0.01, "stop when more than this share of the files are no images", limit="0 <= x <= 1")
    cache_dir: str = setting("", "folder of cached features; '' for pic_tf.evaluate's, beside the SavedModel")


def check(settings: Settings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    if not _FEWEST <= settings.images <= _MOST:
        raise ValueError(f"expected {_FEWEST} <= --images <= {_MOST}, got {settings.images}")
    path = pathlib.Path(settings.output)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise ValueError(f"expected a PNG file in a folder that is there, got {settings.output!r}: name another one")


def points(features: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Features as points of a plane, after each was brought to length 1.

    Args:
      features: float32 [n, C].
      method: "tsne" or "pca".
      seed: of t-SNE.

    Returns:
      (float64 [n, 2], names of the axes; "" where they mean nothing).

    Raises:
      ValueError: where all features are the same.

    Source: van der Maaten and Hinton 2008 (https://jmlr.org/papers/v9/vandermaaten08a.html), begun from the principal
    components as Kobak and Berens 2019 (https://doi.org/10.1038/s41467-019-13056-x) advise.
    """
    from sklearn.decomposition import PCA  # slow to import
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn requires it

    features = features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    if np.ptp(features, axis=0).max() == 0:
        raise ValueError(f"expected features that differ, got {len(features)} times the same: the backbone is not well")
    if method == "pca":
        pca = PCA(2, svd_solver="full")
        found = pca.fit_transform(features)
        shares = pca.explained_variance_ratio_
        names = tuple(f"principal component {i} ({share:.1%} of the variance)" for i, share in enumerate(shares, 1))
        return found, names
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    # One thread: several wait for each other in every step, which on a busy machine took 40 times as long, and their
    # sums, so the map, would depend on their number.
    with threadpool_limits(1):
        return tsne.fit_transform(features.astype(np.float32)).astype(np.float64), ("", "")


def save_map(found: np.ndarray, axes: tuple[str, str], labels, class_names, title: str, path: pathlib.Path) -> None:
    """Draw points, with a legend where there are at most 20 classes.

    Args:
      found: float [n, 2].
      axes: their names.
      labels: int64 [n], or None.
      class_names: names of the classes.
      title: what stands above.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 7), layout="constrained")
    size = np.clip(20_000 / len(found), 3, 40)
    style = {"s": size, "linewidths": 0, "alpha": 0.75}
    named = labels is not None and len(class_names) <= _MOST_NAMED
    if labels is None:
        axis.scatter(*found.T, color="tab:blue", **style)
    else:
        count = len(class_names)
        palette = plt.get_cmap("tab10" if count <= 10 else "tab20" if named else "turbo")
        colours = palette(labels if named else labels / (count - 1))
        axis.scatter(*found.T, color=colours, **style)  # in the order of the ids: no class lies on top of another
    if named:
        handles = [axis.scatter([], [], color=palette(i), s=30) for i in range(count)]
        legend = axis.legend(handles, ["x"] * count, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for text, name in zip(legend.get_texts(), class_names):  # only now: "_" at the start would hide it
            text.set_parse_math(False)  # as it is: "$" would begin a formula
            text.set_text(name if len(name) <= 24 else f"{name[:15]}...{name[-6:]}")
    axis.set_xlabel(axes[0])
    axis.set_ylabel(axes[1])
    if not any(axes):
        axis.set_xticks([])
        axis.set_yticks([])
    axis.set_aspect("equal", "datalim")
    axis.set_title(title, fontsize=11, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that matplotlib's font lacks
        with replaced(path, "wb") as file:
            figure.savefig(file, format="png", dpi=_DPI)
    plt.close(figure)


def draw_map(settings: Settings) -> str:
    """Draw the features of some images, and write down the points.

    Args:
      settings: as `check` passes them.

    Returns:
      What was drawn, in a line.

    Raises:
      ValueError: for a model or images that cannot be used.
      OSError: where a file cannot be written.
    """
    subject = open_subject(settings)
    source: Source = subject.held_out or subject.train
    if len(source) < _FEWEST:
        raise ValueError(f"expected at least {_FEWEST} images, got {len(source)} in {source.name}")
    ids = np.arange(len(source))
    if len(ids) > settings.images:
        ids = np.sort(np.random.default_rng(settings.seed).choice(ids, settings.images, replace=False))
    ids, features = subject.features_of(source, ids)
    found, axes = points(features, settings.method, settings.seed)
    labels = None if source.labels is None else source.labels[ids]
    path = pathlib.Path(settings.output)
    kind = "training" if source is subject.train else "held-out"
    method = {"tsne": "t-SNE", "pca": "PCA"}[settings.method]
    title = f"{method} of {len(ids):,} {kind} images by {subject.name}"
    if labels is not None and len(source.class_names) > _MOST_NAMED:
        title += f", {len(source.class_names):,} classes"
    save_map(found, axes, labels, source.class_names, title, path)
    table = path.with_suffix(".csv")
    classes = [""] * len(ids) if labels is None else [source.class_names[label] for label in labels]
    lines = ((i, source.path(i), name, f"{x:.6g}", f"{y:.6g}") for i, name, (x, y) in zip(ids.tolist(), classes, found))
    write_csv(table, [COLUMNS, *lines])
    return f"{title}: {path}, {table}"


def main() -> None:
    import tensorflow as tf  # quietly by now

    settings = flag_files.from_flags(settings=Settings)
    check(settings)
    tf.config.experimental.enable_op_determinism()
    print(draw_map(settings))


if __name__ == "__main__":
    flag_files.define_flags(settings=Settings)
    command_line.run(main, functools.partial(help_text, Settings), no_memory="lower --image_size or --images")
