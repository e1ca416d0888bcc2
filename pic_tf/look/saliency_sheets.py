"""Draw saliency maps over images, and what two networks' maps have in common."""

import csv
import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.augment import normalise
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import RGB
from pic_tf.data.sources.source import Source
from pic_tf.evals.run_behind import run_behind
from pic_tf.look.contact_sheet import SIDE, Cell, Group, save_contact_sheet
from pic_tf.look.figures import save_figure
from pic_tf.look.neighbour_tables import write_csv
from pic_tf.look.saliency_maps import accuracy_by_similarity, random_maps, saliency, similarity
from pic_tf.look.settings import SaliencySettings
from pic_tf.serving.open_resnet import Resnet, feature_maps, open_resnet

COLUMNS = ("id", "file", "class", "similarity", "random", "told")
_ACROSS = 4  # images side by side in a contact sheet
_BATCH = 64
_BINS = 10  # groups of images in the curve of accuracies
_IMAGE_SHARE = 0.45  # of the image's pixels in those of a map drawn over it


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """Images with the saliency maps of one or two networks.

    Attributes:
      source: the images.
      ids: int64 [n].
      views: uint8 [n, SIDE, SIDE, 3] as drawn.
      maps: float32 [n, h, w] of each network.
      names: of the networks.
    """

    source: Source
    ids: np.ndarray
    views: np.ndarray
    maps: tuple[np.ndarray, ...]
    names: tuple[str, ...]


def draw_saliency(settings: SaliencySettings) -> str:
    """Draw saliency maps, and compare those of two networks.

    Args:
      settings: as `check_saliency` passes them.

    Returns:
      Lines about the files.

    Raises:
      ValueError: for a network, images or predictions that cannot be used.
      OSError: where a file cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    networks = [open_resnet(path) for path in (settings.model, settings.other) if path]
    source = _open_images(settings)
    found = _maps_of(source, networks, settings)
    output, rng = settings.output, np.random.default_rng(settings.seed)
    drawn = rng.permutation(len(found.ids))[: settings.count]
    title = f"Saliency maps of {' and '.join(found.names)}"
    if len(networks) == 1:
        _draw_sheet(found, drawn, None, title, pathlib.Path(f"{output}.png"))
        return f"{title}, {len(drawn)} images: {output}.png"
    agreement = similarity(*found.maps)
    with_random = similarity(random_maps(found.maps[1].shape, settings.seed), found.maps[1])
    told = _read_predictions(settings.predictions, source, found.ids)
    _draw_sheet(found, drawn, agreement, title, pathlib.Path(f"{output}.png"))
    least = np.argsort(agreement, kind="stable")[: settings.count]
    least_title = f"{title} that agree least"
    _draw_sheet(found, least, agreement, least_title, pathlib.Path(f"{output}_least.png"))
    _draw_similarity(found, agreement, with_random, told, f"{output}_similarity.png")
    _write_numbers(found, agreement, with_random, told, pathlib.Path(f"{output}.csv"))
    return (
        f"{title}, {len(found.ids):,} images: similarity {agreement.mean():.3f}, with random maps "
        f"{with_random.mean():.3f}: {output}.png, {output}_least.png, {output}_similarity.png, "
        f"{output}.csv"
    )


def _open_images(settings: SaliencySettings) -> Source:
    names = (settings.dataset, settings.eval_dataset, settings.split_folders)
    if not settings.dataset:
        run = run_behind(settings.model)
        names = (run.dataset, settings.eval_dataset or run.eval_dataset, run.split_folders)
    train, held_out = open_dataset(names[0], names[1], settings.max_broken, names[2], RGB)
    return held_out or train


def _maps_of(source: Source, networks: list[Resnet], settings: SaliencySettings) -> Maps:
    """Compute the maps of all networks from the same views."""
    ids = np.arange(len(source))
    if len(ids) > settings.images:
        rng = np.random.default_rng(settings.seed)
        ids = np.sort(rng.choice(ids, settings.images, replace=False))
    size = settings.image_size or networks[0].image_size
    crop = settings.eval_crop or networks[0].eval_crop
    broken, models = BrokenImages(source), [feature_maps(network.model) for network in networks]

    @tf.function(reduce_retracing=True)
    def of_views(views: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        shown = tf.cast(tf.round(tf.image.resize(views, [SIDE, SIDE], antialias=True)), tf.uint8)
        inputs = normalise(views)
        return shown, [saliency(model(inputs, training=False)) for model in models]

    options = {"image_size": size, "crop_fraction": crop, "batch_size": _BATCH, "broken": broken}
    with naming_unreadable(source, ids):
        parts = [of_views(views) for views in evaluation_batches(source, ids, **options)]
    broken.report(settings.max_broken)
    fine = broken.decodable(ids)
    if not fine.any():
        raise ValueError(f"expected images of {source.name} that can be decoded, got none")
    views = np.concatenate([shown for shown, _ in parts])[fine]
    maps = [np.concatenate([found[i] for _, found in parts])[fine] for i in range(len(models))]
    shapes = sorted({found.shape[1:] for found in maps})
    if len(shapes) > 1 or shapes[0] == (1, 1):
        got = " and ".join(f"{height} x {width}" for height, width in shapes)
        raise ValueError(
            f"expected saliency maps of one size of more than one place, got {got} from views of "
            f"{size} pixels: name a larger --image_size, or networks of the same strides"
        )
    return Maps(source, ids[fine], views, tuple(maps), tuple(network.name for network in networks))


def _read_predictions(path: str, source: Source, ids: np.ndarray) -> list[str] | None:
    """Read the class told for each image; None where no file is named."""
    if not path:
        return None
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            told = {row["name"]: row["class"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error) as error:
        raise ValueError(
            f"expected a CSV file of pic_tf.predict in --predictions, got {path!r} "
            f"({type(error).__name__}): write it with python -m pic_tf.predict"
        ) from error
    missing = next((source.path(i) for i in ids if source.path(i) not in told), None)
    if missing or source.labels is None:
        got = f"none for {missing!r}" if missing else f"images without classes in {source.name}"
        raise ValueError(
            f"expected a prediction in {path!r} and a class for every image, got {got}: predict "
            "the images that are drawn here"
        )
    return [told[source.path(i)] for i in ids]


def overlay(view: np.ndarray, saliency_map: np.ndarray) -> np.ndarray:
    """Colour an image by a saliency map, from its least place (blue) to its greatest (red).

    Args:
      view: uint8 [SIDE, SIDE, 3].
      saliency_map: float [h, w].

    Returns:
      uint8 [SIDE, SIDE, 3].
    """
    import matplotlib

    low, high = saliency_map.min(), saliency_map.max()
    spread = (saliency_map - low) / (high - low if high > low else 1)
    smooth = tf.image.resize(spread[..., None], [SIDE, SIDE], "bicubic").numpy()[..., 0]
    colours = matplotlib.colormaps["jet"](np.clip(smooth, 0, 1))[..., :3]
    mixed = _IMAGE_SHARE * view + (1 - _IMAGE_SHARE) * 255 * colours
    return np.rint(mixed).astype(np.uint8)


def _draw_sheet(
    found: Maps, chosen: np.ndarray, agreement: np.ndarray | None, title: str, path: pathlib.Path
) -> None:
    groups = []
    for i in chosen:
        view, [name] = found.views[i], classes_of(found.source, [found.ids[i]])
        words = [name] if name else []
        cells = [Cell(view, (pathlib.Path(found.source.path(found.ids[i])).name, *words))]
        cells += [Cell(overlay(view, m[i]), (n,)) for m, n in zip(found.maps, found.names)]
        heading = "" if agreement is None else f"similarity {agreement[i]:.3f}"
        groups.append(Group(heading, tuple(cells)))
    rows = [groups[first : first + _ACROSS] for first in range(0, len(groups), _ACROSS)]
    save_contact_sheet(rows, title, path)


def _right(found: Maps, told: list[str]) -> np.ndarray:
    classes = classes_of(found.source, found.ids)
    return np.array([one == other for one, other in zip(classes, told)])


def _draw_similarity(
    found: Maps, agreement: np.ndarray, with_random: np.ndarray, told: list[str] | None, path: str
) -> None:
    """Draw counts by similarity and, of known predictions, accuracy by similarity."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2 if told else 1, figsize=(10 if told else 5.5, 4), layout="constrained", squeeze=False
    )
    first, bins = axes[0, 0], np.linspace(0, 1, 51)
    names = " and ".join(found.names)
    for values, label in ((agreement, names), (with_random, f"random maps and {found.names[1]}")):
        label = f"{label}, mean {values.mean():.3f}".replace("$", r"\$")
        first.hist(values, bins, alpha=0.7, label=label)
    first.set_xlabel("similarity of saliency maps")
    first.set_ylabel("images")
    first.legend(fontsize=7, frameon=False, loc="upper left")
    if told:
        second = axes[0, 1]
        second.plot(*accuracy_by_similarity(agreement, _right(found, told), _BINS), "o-")
        second.set_xlabel("similarity of saliency maps")
        second.set_ylabel("top-1 accuracy")
        second.grid(alpha=0.3)
    save_figure(figure, pathlib.Path(path))


def _write_numbers(
    found: Maps,
    agreement: np.ndarray,
    with_random: np.ndarray,
    told: list[str] | None,
    path: pathlib.Path,
) -> None:
    source = found.source
    lines = (
        (i, source.path(i), of_image, f"{one:.6f}", f"{other:.6f}", name)
        for i, of_image, one, other, name in zip(
            found.ids.tolist(),
            classes_of(source, found.ids),
            agreement,
            with_random,
            told or [""] * len(found.ids),
        )
    )
    write_csv(path, [COLUMNS, *lines])
