"""Formats of encoded images, told by their first bytes.

JPEGs, PNGs and, with a TensorFlow that decodes them, WebPs are read. Packing converts all others
that Pillow reads.
"""

import tensorflow as tf

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
GIF_START = b"GIF8"
WEBP_STARTS = (b"RIFF", b"WEBP")  # with the length of the file between them
HEAD = 12  # bytes that tell a format
READS_WEBP = hasattr(tf.io, "decode_webp")  # since TensorFlow 2.21
NAMES = "JPEG, PNG or WebP" if READS_WEBP else "JPEG or PNG"
# Of what is read.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", *([".webp"] if READS_WEBP else []))
# Other images, which packing converts and nothing else reads.
TO_PACK = (
    *([] if READS_WEBP else [".webp"]),
    *".gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm .avif .avifs".split(),
    *".tga .ico .icns .pcx .sgi .psd .dds .apng .heic .heif .jxl".split(),
)
IMAGE_EXTENSIONS = EXTENSIONS + TO_PACK


def is_webp(encoded: bytes) -> bool:
    """Tell a WebP by its first bytes."""
    return (encoded[:4], encoded[8:HEAD]) == WEBP_STARTS


def is_read(encoded: bytes) -> bool:
    """Tell by its first bytes whether an image has a format that is read."""
    return encoded.startswith((JPEG_START, PNG_START)) or (READS_WEBP and is_webp(encoded))
