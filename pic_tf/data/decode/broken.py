"""Images that cannot be decoded: known by id, each with its reason."""

import csv
import pathlib
import sys
import threading

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.data.decode import bombs, headers
from pic_tf.data.sources.formats import GIF_START, JPEG_START
from pic_tf.data.sources.source import Source
from pic_tf.files.replaced import replaced

COLUMNS = ("id", "image", "reason")
_DAMAGED = "cut off, or damaged inside"


class BrokenImages:
    """The images of a source that turned out to be broken; the input pipeline fills it from its threads.

    Args:
      source: the images.
      path: a CSV file for them; what it holds already stays. None for no file.

    Attributes:
      path: the file.
      reasons: why, by instance id; those of the file too.
    """

    def __init__(self, source: Source, path: pathlib.Path | None = None):
        self._source, self.path, self._lock = source, path, threading.Lock()
        # Found by this process, whatever the window: a file that was mended since is decoded again. Of a JPEG that is
        # cut off, some windows can be decoded: these it does not count, or a run would depend on what it saw before.
        self._hopeless: set[int] = set()
        self.reasons: dict[int, str] = {}
        if path is not None and path.exists():
            with open(path, newline="", errors="surrogateescape") as file:
                self.reasons = {int(row["id"]): row["reason"] for row in csv.DictReader(file)}
        self._written = len(self.reasons)

    def __len__(self) -> int:
        return len(self.reasons)

    def known(self, instance_ids: np.ndarray) -> np.ndarray:
        """bool [b], which of int64 [b] ids need not be tried again, because no window of them can be decoded."""
        return np.array([int(i) in self._hopeless for i in instance_ids], bool)

    def add(self, instance_ids: np.ndarray, encoded: np.ndarray) -> None:
        """Take note of broken images: int64 [n] ids and their bytes."""
        for instance_id, image in zip(instance_ids, encoded):
            why = reason(image)
            with self._lock:
                if why != _DAMAGED or not image.startswith(JPEG_START):
                    self._hopeless.add(int(instance_id))
                self.reasons.setdefault(int(instance_id), why)

    def whole(self, instance_ids: np.ndarray) -> np.ndarray:
        """bool [n], which of int64 [n] ids are not known to be broken."""
        return ~np.isin(instance_ids, list(self.reasons))

    def tell(self, most: float, prefix: str = "") -> None:
        """Write a line for each image found since the last call, and see that there are not too many.

        Args:
          most: share of the images that may be broken.
          prefix: what the lines begin with.

        Raises:
          ValueError: where more are.
        """
        for line in self.new():
            tqdm.write(f"{prefix}broken image, left out: {line}", file=sys.stderr)
        self.check(most)

    def check(self, most: float, count: int | None = None) -> None:
        """See that no larger a share of the images is broken than `most`.

        Args:
          most: in [0, 1].
          count: how many are broken, where others look as well; None for those found here.

        Raises:
          ValueError: where it is.
        """
        count = len(self) if count is None else count
        if count > most * len(self._source):
            first = next((f", the first {self._source.path(i)!r} ({why})" for i, why in self.reasons.items()), "")
            see = f"see {self.path}, " if self.path else ""
            raise ValueError(
                f"expected at most {most:.3%} of the {len(self._source):,} images to be broken (--max_broken), got "
                f"{count:,}{first}: {see}remove or replace them, or allow more"
            )

    def new(self) -> list[str]:
        """What was found since the last call, a line each; the file is brought up to date.

        Raises:
          OSError: where it cannot be written.
        """
        with self._lock:
            rows = [(i, self._source.path(i), why) for i, why in self.reasons.items()]
        fresh, self._written = rows[self._written :], len(rows)
        if fresh and self.path is not None:
            with replaced(self.path, newline="", errors="surrogateescape") as file:
                csv.writer(file).writerows([COLUMNS, *rows])
        return [f"{image!r}: {why}" for _, image, why in fresh]


def reason(encoded: bytes) -> str:
    """Why an image cannot be decoded, in a few words."""
    if not encoded:
        return "it is empty"
    if encoded.startswith(GIF_START):
        return "a GIF, which tools/pack.py converts"
    if not encoded.startswith((JPEG_START, headers.PNG_HEADER)):
        return "no JPEG or PNG"
    height, width = headers.sizes(tf.constant([encoded])).numpy()[0].tolist()
    if not encoded.startswith(JPEG_START):
        try:
            width, height = headers.png_size(encoded)
        except ValueError:
            return "its header is damaged"
    if min(height, width) < 1:
        return "its header is damaged"
    if height * width > bombs.MAX_PIXELS:
        return f"{width:,} x {height:,} pixels, more than {bombs.MAX_PIXELS:,}"
    return _DAMAGED
