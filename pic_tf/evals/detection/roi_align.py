"""Feature maps of boxes: RoIAlign."""

import tensorflow as tf

_SAMPLES = 2  # points of a cell in each direction


def roi_align(maps: tf.Tensor, boxes: tf.Tensor, stride: int, cells: int) -> tf.Tensor:
    """Average the features of each cell of a grid over a box.

    A cell has 2 x 2 points, a quarter of its side from its borders; the feature at a point is
    interpolated between the centres of the four pixels around it, those at the border reaching
    beyond it. Pixel (i, j) of a map has its centre at stride (i + 1/2, j + 1/2) of the image.

    Args:
      maps: float32 [B, h, w, C].
      boxes: float32 [B, N, 4] in pixels of the image, not beyond its borders.
      stride: pixels of the image for each pixel of a map.
      cells: side of the grid.

    Returns:
      float32 [B N, cells, cells, C].

    Source: He et al. 2017 (https://arxiv.org/abs/1703.06870), Section 3, with the half pixel that
    detectron2 added.
    """
    # crop_and_resize has zeros beyond the outermost centres: one more pixel holds them off.
    maps = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    sizes = tf.cast(tf.shape(maps)[1:3], tf.float32)
    points = cells * _SAMPLES
    boxes = boxes / float(stride) + 0.5  # in pixels of the padded map, from centre to centre
    low, high = boxes[..., :2], boxes[..., 2:]
    inset = (high - low) / (2 * points)
    corners = tf.concat([low + inset, high - inset], -1)  # first and last point
    x1, y1, x2, y2 = tf.unstack(tf.reshape(corners, [-1, 4]), axis=1)
    scaled = tf.stack([y1, x1, y2, x2], 1) / tf.tile(sizes - 1, [2])
    images = tf.repeat(tf.range(tf.shape(boxes)[0]), tf.shape(boxes)[1])
    sampled = tf.image.crop_and_resize(maps, scaled, images, [points, points])
    return tf.nn.avg_pool2d(sampled, _SAMPLES, _SAMPLES, "VALID")
