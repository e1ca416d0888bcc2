"""Formats of encoded images, told by their first bytes.

JPEGs and PNGs are read. Of GIFs TensorFlow draws transparent pixels in black, of BMPs it takes a
palette for gray levels: packing converts these and all others that Pillow reads.
"""

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
GIF_START = b"GIF8"
STARTS = (JPEG_START, PNG_START)  # of what is read
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")  # of what is read
# Other images, which packing converts and nothing else reads.
TO_PACK = (
    *".webp .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm .avif .avifs".split(),
    *".tga .ico .icns .pcx .sgi .psd .dds .apng .heic .heif .jxl".split(),
)
IMAGE_EXTENSIONS = EXTENSIONS + TO_PACK
