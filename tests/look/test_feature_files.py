"""Pictures of features in a file are those of the backbone that the file was made with."""

import dataclasses

import pytest

from pic_tf.feature_files.compute import embed
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.look.feature_points import draw_map
from pic_tf.look.nearest_images import retrieve
from pic_tf.look.settings import FeatureMapSettings, RetrievalSettings
from tests.short_runs import picture_folder

FILES = ("out.csv", "out_map.csv", "out.png", "out_map.png")


def test_pictures_of_a_feature_file(tmp_path):
    folder = picture_folder(tmp_path / "images")
    (folder / "train" / "class1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    file, cache = str(tmp_path / "features.parquet"), str(tmp_path / "cache")
    embed(EmbedSettings("pixels", str(folder), output=file, max_broken=0.1))
    written = []
    for model, dataset in (("pixels", str(folder)), (file, "")):
        output = str(tmp_path / "out")
        same = {"cache_dir": cache, "max_broken": 0.1}
        retrieve(RetrievalSettings(model, dataset, output=output, count=4, neighbours=5, **same))
        line = draw_map(
            FeatureMapSettings(model, dataset, output=f"{output}_map.png", method="pca", **same)
        )
        assert line.startswith("PCA of 10 held-out images by raw pixels: ")
        written.append([(tmp_path / name).read_bytes() for name in FILES])
    assert written[0] == written[1]
    assert [written[0][i].count(b"\n") for i in (0, 1)] == [1 + 4 * 5, 1 + 10]
    settings = FeatureMapSettings(file, output=f"{tmp_path / 'out'}.png", max_broken=0.1)
    for changes, sentence in (
        ({"image_size": 8}, r"expected no --image_size with features that are computed already"),
        ({"dataset": str(folder / "val")}, r"expected the images whose features are in .*others"),
        ({"model": "missing.npy"}, r"expected a file of features at 'missing.npy', got none that"),
        ({"model": str(tmp_path / "out.npy")}, r"expected a file of features at .*out.npy', got n"),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
            draw_map(dataclasses.replace(settings, **changes))
