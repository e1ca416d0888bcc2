"""List the images below the address of a folder in a bucket."""

import functools
import io
from typing import BinaryIO

import fsspec

from pic_tf.data.packing import places
from pic_tf.data.packing.listed import Files, check_size
from pic_tf.data.sources.layout import is_part


def images_in_bucket(source: str, split_folders: str) -> Files:
    """List all files below an address; the first folder names the class.

    Args:
      source: such as "gs://bucket/folder".
      split_folders: "auto" to refuse parts such as train and val inside; "none" to take them for
        classes.

    Raises:
      ValueError: where nothing can be listed, or parts are inside.
    """
    files, root = places.open_place(source)
    root = root.rstrip("/")
    with places.reported(source):
        if files.isfile(root):
            raise ValueError(
                f"expected a folder or .tar files at {source!r}, got another file: copy it here"
            )
        found = files.find(root, detail=True)
    sizes = {path.removeprefix(root).lstrip("/"): x["size"] for path, x in found.items()}
    names = sorted(n for n in sizes if n and not any(x.startswith(".") for x in n.split("/")))
    class_names = sorted({_class_of(name) for name in names} - {""})
    if parts := [name for name in class_names if split_folders == "auto" and is_part(name)]:
        raise ValueError(
            f"expected the folder of one part at {source!r}, got {', '.join(parts)} in it: pack "
            f"each, such as --source={source.rstrip('/')}/{parts[0]}, or take all folders for "
            "classes (--split_folders=none)"
        )
    named = [(name, (f"{root}/{name}", sizes[name], _class_of(name))) for name in names]
    return Files(named, functools.partial(_fetch, files), tuple(class_names))


def _class_of(name: str) -> str:
    return name.split("/")[0] if "/" in name else ""


def _fetch(files: fsspec.AbstractFileSystem, key: tuple[str, int, str]) -> tuple[BinaryIO, str]:
    path, size, class_name = key
    check_size(size)
    return io.BytesIO(places.read(files, path, 0, size)), class_name
