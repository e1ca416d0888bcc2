"""Formats of encoded images, told by their first bytes.

JPEGs and PNGs are read. Of GIFs TensorFlow draws transparent pixels in black, of BMPs it takes a
palette for gray levels: packing converts these and all others that Pillow reads.
"""

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
GIF_START = b"GIF8"
STARTS = (JPEG_START, PNG_START)  # of what is read
EXTENSIONS = (".jpg", ".jpeg", ".png")  # of what is read
CONVERTED = ".gif"  # the extension of images that packing converts and nothing else reads
