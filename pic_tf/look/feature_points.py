"""Draw features of images as points of a plane."""

import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.source import Source
from pic_tf.look.figures import save_figure
from pic_tf.look.neighbour_tables import write_csv
from pic_tf.look.session import open_session
from pic_tf.look.settings import MIN_POINTS, FeatureMapSettings

COLUMNS = ("id", "file", "class", "x", "y")
_PERPLEXITY = 30.0  # t-SNE's usual one; a third of the images where these are few
_MAX_NAMED = 20  # classes in a legend


def points(features: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Project features, each brought to length 1, on points of a plane.

    Args:
      features: float32 [n, C].
      method: "tsne" or "pca".
      seed: seed of t-SNE.

    Returns:
      (float64 [n, 2], names of the axes; "" where they mean nothing).

    Raises:
      ValueError: where all features are the same.

    Source: van der Maaten and Hinton 2008 (https://jmlr.org/papers/v9/vandermaaten08a.html), begun
    from the principal components as Kobak and Berens 2019
    (https://doi.org/10.1038/s41467-019-13056-x) advise.
    """
    from sklearn.decomposition import PCA  # slow to import
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn requires it

    features = features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    if np.ptp(features, axis=0).max() == 0:
        raise ValueError(
            "expected features that differ, "
            f"got {len(features)} times the same: the backbone is not well"
        )
    if method == "pca":
        pca = PCA(2, svd_solver="full")
        found = pca.fit_transform(features)
        shares = pca.explained_variance_ratio_
        names = [
            f"principal component {i} ({x:.1%} of the variance)" for i, x in enumerate(shares, 1)
        ]
        return found, tuple(names)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    # One thread: several wait for each other in every step, which on a busy machine took 40 times
    # as long, and their sums, so the map, would depend on their number.
    with threadpool_limits(1):
        return tsne.fit_transform(features.astype(np.float32)).astype(np.float64), ("", "")


def save_map(
    found: np.ndarray,
    axes: tuple[str, str],
    labels: np.ndarray | None,
    class_names: tuple[str, ...],
    title: str,
    path: pathlib.Path,
) -> None:
    """Draw points, with a legend where there are at most 20 classes.

    Args:
      found: float [n, 2].
      axes: names of the axes.
      labels: int64 [n], or None.
      class_names: names of the classes.
      title: words above the points.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 7), layout="constrained")
    size = np.clip(20_000 / len(found), 3, 40)
    style = {"s": size, "linewidths": 0, "alpha": 0.75}
    named = labels is not None and len(class_names) <= _MAX_NAMED
    if labels is None:
        axis.scatter(*found.T, color="tab:blue", **style)
    else:
        count = len(class_names)
        palette = plt.get_cmap("tab10" if count <= 10 else "tab20" if named else "turbo")
        colours = palette(labels if named else labels / (count - 1))
        # In the order of the ids: no class lies on top of another.
        axis.scatter(*found.T, color=colours, **style)
    if named:
        handles = [axis.scatter([], [], color=palette(i), s=30) for i in range(count)]
        at_right = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        legend = axis.legend(handles, ["x"] * count, frameon=False, **at_right)
        # Only now: "_" at the start of a name would hide it.
        for text, name in zip(legend.get_texts(), class_names):
            text.set_parse_math(False)  # "$" would begin a formula
            text.set_text(name if len(name) <= 24 else f"{name[:15]}...{name[-6:]}")
    axis.set_xlabel(axes[0])
    axis.set_ylabel(axes[1])
    if not any(axes):
        axis.set_xticks([])
        axis.set_yticks([])
    axis.set_aspect("equal", "datalim")
    axis.set_title(title, fontsize=11, parse_math=False)
    save_figure(figure, path)


def draw_map(settings: FeatureMapSettings) -> str:
    """Draw the features of some images, and write down the points.

    Args:
      settings: as `check_feature_map` passes them.

    Returns:
      A line about the picture.

    Raises:
      ValueError: for a model or images that cannot be used.
      OSError: where a file cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    session = open_session(settings)
    source: Source = session.held_out or session.train
    if len(source) < MIN_POINTS:
        raise ValueError(
            f"expected at least {MIN_POINTS} images, got {len(source)} in {source.name}"
        )
    ids = np.arange(len(source))
    if len(ids) > settings.images:
        rng = np.random.default_rng(settings.seed)
        ids = np.sort(rng.choice(ids, settings.images, replace=False))
    ids, features = session.features_of(source, ids)
    found, axes = points(features, settings.method, settings.seed)
    labels = None if source.labels is None else source.labels[ids]
    path = pathlib.Path(settings.output)
    kind = "training" if source is session.train else "held-out"
    method = {"tsne": "t-SNE", "pca": "PCA"}[settings.method]
    title = f"{method} of {len(ids):,} {kind} images by {session.name}"
    if labels is not None and len(source.class_names) > _MAX_NAMED:
        title += f", {len(source.class_names):,} classes"
    save_map(found, axes, labels, source.class_names, title, path)
    table = path.with_suffix(".csv")
    lines = (
        (i, source.path(i), name, f"{x:.6g}", f"{y:.6g}")
        for i, name, (x, y) in zip(ids.tolist(), classes_of(source, ids), found)
    )
    write_csv(table, [COLUMNS, *lines])
    return f"{title}: {path}, {table}"
