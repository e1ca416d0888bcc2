"""Let a detector tell the objects of images."""

import tensorflow as tf
from tqdm import tqdm

from pic_tf.evals.detection.annotations import Picture
from pic_tf.evals.detection.detector import Detector
from pic_tf.evals.detection.inputs import pixels_of, resized
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.files.progress import drawing_interval


def detect(
    model: Detector, data: PictureSet[Picture], side: int, long_side: int
) -> list[Detections]:
    """Tell the objects of every image, one image at a time.

    Args:
      model: trained.
      data: the images.
      side, long_side: short side of an image in pixels, and the largest long side.

    Returns:
      Detections in the pixels of the files.
    """

    def image_of(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return resized(pixels_of(data, i), side, long_side)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([2])])
    def tell(image: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        boxes, scores, classes, count = model.detect(image[None], size[None])
        boxes = boxes[0] / tf.gather(scale, [1, 0, 1, 0])
        return boxes[: count[0]], scores[0, : count[0]], classes[0, : count[0]]

    ids = tf.data.Dataset.range(len(data.pictures))
    images = ids.map(image_of, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    bar = tqdm(
        images, data.name, len(data.pictures), unit=" images", mininterval=drawing_interval()
    )
    return [Detections(*(array.numpy() for array in tell(*entry))) for entry in bar]
