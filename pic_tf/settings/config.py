"""Put all settings of a pretraining run together."""

import dataclasses
from typing import ClassVar

from pic_tf.data.crops import Crop, parse_crops
from pic_tf.data.normalisation import IMAGENET, Normalisation
from pic_tf.data.order import SlidingWindow
from pic_tf.data.presets import PRESETS, Preset, without_colours
from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.settings.images import Data, Views
from pic_tf.settings.learning import Model, Negatives, Optimisation, Order
from pic_tf.settings.methods import ROWS, TWO_VIEWS, Method
from pic_tf.settings.running import Devices, Files, Monitors


@dataclasses.dataclass(frozen=True)
class Config(Files, Monitors, Devices, Optimisation, Views, Model, Negatives, Method, Order, Data):
    """Settings of one run.

    The defaults are the paper's ImageNet recipe; None means "chosen for the data set".
    """

    # A newcomer's flags.
    FIRST: ClassVar[tuple[str, ...]] = (
        *("dataset", "eval_dataset", "output_dir", "epochs", "batch_size", "learning_rate"),
        *("backbone", "image_size", "augmentation", "precision"),
    )

    @property
    def depth(self) -> int | None:
        """Depth of the ResNet; None for another network."""
        depth = self.backbone.removeprefix("resnet")
        return int(depth) if depth != self.backbone and depth.isdecimal() else None

    @property
    def pixels(self) -> PixelFormat:
        """Format of the images."""
        return PixelFormat(self.channels, self.bit_depth)

    @property
    def normalisation(self) -> Normalisation:
        """Mean and deviation of each channel; of a configuration that has them, if RGB has not."""
        if self.channel_mean is None:
            return IMAGENET
        return Normalisation(self.channel_mean, self.channel_stddev)

    @property
    def has_rows(self) -> bool:
        """True where each image has a row of weights."""
        return self.method in ROWS

    @property
    def rows_elsewhere(self) -> str:
        """Folder for rows on disk of several runs; "" where there are none outside this run's."""
        return self.rows_dir if self.instance_store == "disk" else ""

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Numbers of labels of --label_curve, in rising order."""
        return tuple(sorted({int(count) for count in self.label_curve}))

    def views(self) -> tuple[Crop, ...]:
        """List the crops that a step takes of each image; of a resolved configuration."""
        if self.crops:
            return parse_crops(self.crops)
        return (Crop(self.image_size, self.crop_scale, 2 if self.method in TWO_VIEWS else 1),)

    def sliding_windows(self, num_replicas: int = 1) -> list[SlidingWindow]:
        """Make the order of visits of each replica; of a resolved configuration."""
        return [
            SlidingWindow(
                self.num_instances,
                self.batch_size,
                self.window_size,
                self.window_stride,
                self.seed,
                replica,
                num_replicas,
                self.virtual_shards,
            )
            for replica in range(num_replicas)
        ]

    def preset(self) -> Preset:
        """Fill the numbers of --augmentation in where no flag gives others."""
        preset = PRESETS[self.augmentation]()
        published = dataclasses.asdict(preset if self.channels == 3 else without_colours(preset))
        flags = {name: getattr(self, name) for name in published}
        given = {name: value for name, value in flags.items() if value is not None}
        return Preset(**(published | given))
