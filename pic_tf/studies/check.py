"""Check a study before anything runs: its images, and the runs that are there."""

import dataclasses

from pic_tf.runs.open_data import Images, open_images
from pic_tf.settings import defaults
from pic_tf.settings.config import Config
from pic_tf.studies.definition import Study, parsed
from pic_tf.studies.run import Place, figures_of


def check(study: Study, place: Place) -> None:
    """Check the settings of each run against the images, and that runs taken before fit.

    Args:
      study: the study.
      place: its folders.

    Raises:
      ValueError: for images or settings that cannot be used, or a run taken with other flags.
    """
    opened: dict[tuple, Images] = {}
    for variant in study.variants:
        where = f"in variant {variant.name!r}"
        config = parsed(place.words(variant, study.seeds[0]), Config, where)
        data = config.dataset, config.eval_dataset, config.labelled_dataset, config.split_folders
        if data not in opened:
            opened[data] = open_images(dataclasses.replace(config, probe_batch_size=0))
        try:
            defaults.resolve(config, len(opened[data].train))
        except ValueError as error:
            raise ValueError(f"{error} {where}") from None
        for seed in study.seeds:
            figures = figures_of(place.folder(variant, seed))
            if figures and figures["words"] != list(variant.words):
                raise ValueError(
                    f"expected the run in {str(place.folder(variant, seed))!r} to be one of "
                    f"{' '.join(variant.words)}, got one of {' '.join(figures['words'])}: remove "
                    "it, or name another --output_dir"
                )
