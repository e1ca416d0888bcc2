"""Keep a list of images that cannot be decoded, each with its reason."""

import csv
import pathlib
import sys
import threading

import numpy as np
from tqdm import tqdm

from pic_tf.data.decode.decoder import decoder
from pic_tf.data.sources.formats import JPEG_START
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.source import Source
from pic_tf.files.replaced import replaced

COLUMNS = ("id", "image", "reason")
_DAMAGED = "cut off, or damaged inside"


class BrokenImages:
    """The broken images of a source; the input pipeline adds to them from its threads.

    Args:
      source: the images.
      path: a CSV file for the broken ones, to begin or to continue; None for no file.

    Attributes:
      path: the CSV file.
      reasons: the reason of each broken image by its id, those in the file included.
      found: ids that this process found: an image listed before may have been mended since.
    """

    def __init__(self, source: Source, path: pathlib.Path | None = None):
        self._source, self.path, self._lock = source, path, threading.Lock()
        self.found: set[int] = set()
        # Those of them without JPEGs that are cut off: some of their windows can be decoded, and a
        # run must not depend on the windows it saw before.
        self._hopeless: set[int] = set()
        self.reasons: dict[int, str] = {}
        if path is not None and path.exists():
            with open(path, newline="", errors="surrogateescape") as file:
                self.reasons = {int(row["id"]): row["reason"] for row in csv.DictReader(file)}
        self._written = len(self.reasons)

    def __len__(self) -> int:
        return len(self.reasons)

    def known(self, instance_ids: np.ndarray) -> np.ndarray:
        """bool [b], true for int64 [b] ids of images that never decode, whatever the window."""
        return np.array([int(i) in self._hopeless for i in instance_ids], bool)

    def add(self, instance_ids: np.ndarray, encoded: np.ndarray) -> None:
        """Add broken images: int64 [n] ids and their bytes."""
        for instance_id, image in zip(instance_ids, encoded):
            why = reason(image, self._source.pixels)
            with self._lock:
                if why != _DAMAGED or not image.startswith(JPEG_START):
                    self._hopeless.add(int(instance_id))
                self.reasons.setdefault(int(instance_id), why)
                self.found.add(int(instance_id))

    def decodable(self, instance_ids: np.ndarray) -> np.ndarray:
        """bool [n], true for int64 [n] ids of images that are not known to be broken."""
        return ~np.isin(instance_ids, list(self.reasons))

    def report(self, max_fraction: float, prefix: str = "") -> None:
        """Write a line for each newly found image, and check that there are not too many.

        Args:
          max_fraction: share of the images that may be broken, in [0, 1].
          prefix: the beginning of each line.

        Raises:
          ValueError: for a larger share.
        """
        for line in self.new():
            tqdm.write(f"{prefix}broken image, left out: {line}", file=sys.stderr)
        self.check(max_fraction)

    def check(self, max_fraction: float, count: int | None = None) -> None:
        """Check that not too many of the images are broken.

        Args:
          max_fraction: share of the images that may be broken, in [0, 1].
          count: number of broken images that all workers found; None for those found here.

        Raises:
          ValueError: for a larger share.
        """
        count = len(self) if count is None else count
        if count > max_fraction * len(self._source):
            first = ""
            if self.reasons:
                with self._lock:  # the pipeline may add to them meanwhile
                    instance_id = min(self.found or self.reasons)
                why = self.reasons[instance_id]
                first = f", the first {self._source.path(instance_id)!r} ({why})"
            see = f"see {self.path}, " if self.path else ""
            raise ValueError(
                f"expected at most {max_fraction:.3%} of the {len(self._source):,} images to be "
                f"broken (--max_broken), got {count:,}{first}: "
                f"{see}remove or replace them, or allow more"
            )

    def new(self) -> list[str]:
        """A line for each image found since the last call; the file is brought up to date.

        Raises:
          OSError: where the file cannot be written.
        """
        with self._lock:
            rows = [(i, self._source.path(i), why) for i, why in self.reasons.items()]
        fresh, self._written = rows[self._written :], len(rows)
        if fresh and self.path is not None:
            with replaced(self.path, newline="", errors="surrogateescape") as file:
                csv.writer(file).writerows([COLUMNS, *rows])
        return [f"{image!r}: {why}" for _, image, why in fresh]


def reason(encoded: bytes, pixels: PixelFormat = RGB) -> str:
    """The reason why an image cannot be decoded, in a few words.

    Args:
      encoded: its bytes.
      pixels: format that it must have.
    """
    if not encoded:
        return "it is empty"
    return decoder(pixels).reason(encoded) or _DAMAGED
