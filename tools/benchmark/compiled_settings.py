"""Functions of which `compiled_step` times the compiled program, in the order of their worth."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras as keras

from pic_tf import PIC, LazySGD, WarmupCosine, resnet
from pic_tf.data.augment import AUGMENT_RANDOMS, Augmentation

from .step import TEMPERATURE, TRAINING_STEPS, GivenEmbedding, full_softmax_step

HEAD_BATCH, NEGATIVES, DIM = 512, 65536, 128  # B, K and D of a step without backbone
IMAGENET = 1_281_167  # N
SIZES_TO_EXTEND = (70_001, 80_001)  # a program for any N follows from those of two
HEAD_SIZES = (100_000, 1_000_000, 1_280_000, 10_000_000, 30_000_000)
# Draws of a batch: a kind, and a bound of whole numbers, 0 for N.
UNIFORM, NORMAL, BYTES, CLASSES = (
    ("uniform", 1),
    ("normal", 1),
    ("integers", 256),
    ("integers", 1000),
)
IDS = ("ids", 0)  # different from each other, and for long from those of other batches
_AGE = 1000  # steps before the first one, so that every row returns from a rest


@dataclasses.dataclass(frozen=True)
class Setting:
    """A function to compile and time.

    Attributes:
      name: its name in the table.
      build: makes (function, arguments); the function returns a scalar and updates variables.
      batch: of each argument, how `run` draws a batch: a kind and a number.
      seconds: time to compile and measure it on an accelerator, generously, for `run --minutes`.
      sizes: N for which `run` makes the program from those for two small N; `build` takes N then.
      exact: products in float32; else XLA may round their factors to TF32.
      checked: steps of which TensorFlow's own results travel along.
    """

    name: str
    build: Callable[..., tuple[Callable, list[tf.TensorSpec]]]
    batch: tuple[tuple[str, int], ...]
    seconds: int = 15
    sizes: tuple[int, ...] = ()
    exact: bool = False
    checked: int = 0


def settings() -> Iterator[Setting]:
    """All settings: tiny ones to check, the head, the whole step, its augmentation, CIFAR size."""
    yield from tiny_settings()
    yield _tiny("small PIC, ResNet-18", lambda: resnet(18, "small", 8))
    for exact in (False, True):
        kind = "float32" if exact else "TF32"
        sizes = HEAD_SIZES[1:3] if exact else HEAD_SIZES
        yield Setting(f"three products, {kind}", _products, (), exact=exact)
        yield Setting(f"head, {kind}", _head, (IDS,), 10, sizes, exact)
        yield Setting(
            f"full soft-max, {kind}", _full_softmax, (("integers", HEAD_SIZES[2]),), exact=exact
        )
    for size, precision, augmented in [
        (256, "mixed_bfloat16", True),
        (256, "mixed_bfloat16", False),
        (512, "mixed_bfloat16", False),
        (256, "float32", False),
        (512, "float32", False),
    ]:
        if augmented:
            images = (BYTES, UNIFORM)
            yield Setting(f"augmentation, B {size}", _augmentation(size), images)
        else:
            images = (NORMAL,)
        kind = "bfloat16" if precision != "float32" else "TF32"
        what = f"ResNet-50, 224 px, B {size}, {kind}{', augmented' if augmented else ''}"
        choices = _resnet50, 224, size, precision, augmented
        yield Setting(f"PIC, {what}", _pic(*choices), (*images, ("ids", IMAGENET)), 40)
        yield Setting(f"supervised, {what}", _supervised(*choices), (*images, CLASSES), 25)
    for precision, kind in [("mixed_bfloat16", "bfloat16"), ("float32", "TF32")]:
        choices = _resnet18, 32, 512, precision, True
        images, what = (BYTES, UNIFORM), f"ResNet-18, 32 px, B 512, {kind}, augmented"
        yield Setting(f"PIC, {what}", _pic(*choices, 50_000, 4096), (*images, ("ids", 50_000)), 30)
        yield Setting(f"supervised, {what}", _supervised(*choices), (*images, CLASSES), 25)


def tiny_settings() -> Iterator[Setting]:
    """Settings whose results are compared with TensorFlow's own, ring and window passed."""

    def head(num_instances: int) -> tuple[Callable, list[tf.TensorSpec]]:
        return _head_step(8, num_instances, 32, 16, age=0)

    yield Setting("tiny head", head, (IDS,), 15, (100,), exact=True, checked=20)
    yield _tiny("tiny PIC", _convolutions)


def _tiny(name: str, network: Callable[[], keras.Model]) -> Setting:
    sizes = {"hidden_dim": 32, "embedding_dim": 16, "age": 0}
    build = _pic(network, 16, 8, "float32", True, 100, 32, **sizes)
    return Setting(name, build, (BYTES, UNIFORM, ("ids", 100)), 30, exact=True, checked=20)


def _convolutions() -> keras.Model:
    """The kinds of layers that a ResNet has."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input([16, 16, 3]),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPool2D(3, 2, padding="same"),
            layers.Conv2D(16, 3, padding="same"),
        ]
    )


def _resnet50() -> keras.Model:
    return resnet(50)


def _resnet18() -> keras.Model:
    return resnet(18, "small")


def _products() -> tuple[Callable, list[tf.TensorSpec]]:
    """The three matrix products that a step's loss and gradient cannot avoid."""
    queries = tf.Variable(tf.random.stateless_normal([HEAD_BATCH, DIM], [0, 0]))
    weights = tf.Variable(tf.random.stateless_normal([NEGATIVES, DIM], [0, 1]))

    def products() -> tf.Tensor:
        logits = tf.matmul(queries, weights, transpose_b=True)
        # Results have to go somewhere, else the compiler leaves their products out.
        queries.assign(tf.matmul(logits, weights))
        weights.assign(tf.matmul(logits, queries, transpose_a=True))
        return tf.constant(0.0)

    return products, []


def _head(num_instances: int) -> tuple[Callable, list[tf.TensorSpec]]:
    return _head_step(HEAD_BATCH, num_instances, NEGATIVES, DIM, _AGE)


def _head_step(
    batch_size: int, num_instances: int, num_negatives: int, dim: int, age: int
) -> tuple[Callable, list[tf.TensorSpec]]:
    """All of a PIC step but the backbone."""
    inputs = keras.Input([dim], batch_size=batch_size)
    backbone = keras.Model(inputs, GivenEmbedding()(inputs))
    model = PIC(backbone, num_instances, num_negatives, head="none", temperature=TEMPERATURE)
    _compile(model, batch_size, age)
    zeros = tf.zeros([batch_size, dim])

    def step(ids: tf.Tensor) -> tf.Tensor:
        return model.train_step((zeros, ids))["loss"]

    return step, [tf.TensorSpec([batch_size], tf.int64)]


def _full_softmax() -> tuple[Callable, list[tf.TensorSpec]]:
    """Logits of all N rows with a dense update, as the authors' code has it."""
    n = HEAD_SIZES[2]
    embedding = tf.Variable(tf.random.stateless_normal([HEAD_BATCH, DIM], [0, 0]))
    weights = tf.Variable(tf.fill([n, DIM], 0.01))
    optimizer = LazySGD(0.03, max_updates=TRAINING_STEPS)
    optimizer.build([embedding, weights])

    def step(ids: tf.Tensor) -> tf.Tensor:
        return full_softmax_step(embedding, weights, optimizer, ids)

    return step, [tf.TensorSpec([HEAD_BATCH], tf.int64)]


def _augmentation(batch_size: int) -> Callable[[], tuple[Callable, list[tf.TensorSpec]]]:
    def build() -> tuple[Callable, list[tf.TensorSpec]]:
        result = tf.Variable(tf.zeros([batch_size, 224, 224, 3]))

        def augment(images: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
            result.assign(Augmentation()(images, random))
            return tf.constant(0.0)

        return augment, _batch(224, batch_size, augmented=True)[:2]

    return build


def _pic(
    network: Callable[[], keras.Model],
    image_size: int,
    batch_size: int,
    precision: str,
    augmented: bool,
    num_instances: int = IMAGENET,
    num_negatives: int = NEGATIVES,
    hidden_dim: int = 2048,
    embedding_dim: int = DIM,
    age: int = _AGE,
) -> Callable[[], tuple[Callable, list[tf.TensorSpec]]]:
    """A whole PIC step."""

    def build() -> tuple[Callable, list[tf.TensorSpec]]:
        keras.mixed_precision.set_global_policy(precision)
        augment = (lambda batch: Augmentation()(*batch)) if augmented else None
        head = {"hidden_dim": hidden_dim, "embedding_dim": embedding_dim}
        model = PIC(network(), num_instances, num_negatives, augment=augment, **head)
        keras.mixed_precision.set_global_policy("float32")
        _compile(model, batch_size, age)

        def step(*batch: tf.Tensor) -> tf.Tensor:
            *images, ids = batch
            return model.train_step((tuple(images) if augmented else images[0], ids))["loss"]

        return step, _batch(image_size, batch_size, augmented)

    return build


def _supervised(
    network: Callable[[], keras.Model],
    image_size: int,
    batch_size: int,
    precision: str,
    augmented: bool,
) -> Callable[[], tuple[Callable, list[tf.TensorSpec]]]:
    """A step of the same network with a layer of 1,000 classes and Keras' SGD."""

    def build() -> tuple[Callable, list[tf.TensorSpec]]:
        keras.mixed_precision.set_global_policy(precision)
        backbone = network()
        features = backbone.output
        if features.shape.rank == 4:
            features = keras.layers.GlobalAveragePooling2D()(features)
        model = keras.Model(backbone.input, keras.layers.Dense(1000, dtype="float32")(features))
        keras.mixed_precision.set_global_policy("float32")
        optimizer = keras.optimizers.SGD(0.03, momentum=0.9, jit_compile=False)
        optimizer.build(model.trainable_variables)

        def step(*batch: tf.Tensor) -> tf.Tensor:
            *images, labels = batch
            images = Augmentation()(*images) if augmented else images[0]
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(losses)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return loss

        return step, _batch(image_size, batch_size, augmented)

    return build


def _batch(image_size: int, batch_size: int, augmented: bool) -> list[tf.TensorSpec]:
    """Images, with random numbers where they are augmented, and their ids or labels."""
    shape, numbers = [batch_size, image_size, image_size, 3], tf.TensorSpec([batch_size], tf.int64)
    if augmented:
        randoms = tf.TensorSpec([batch_size, AUGMENT_RANDOMS], tf.float32)
        return [tf.TensorSpec(shape, tf.uint8), randoms, numbers]
    return [tf.TensorSpec(shape, tf.float32), numbers]


def _compile(model: PIC, batch_size: int, age: int) -> None:
    """Compile, with a ring that is full and rows that were visited, if `age` > 0."""
    rate = WarmupCosine(0.03 * batch_size / 256, TRAINING_STEPS, TRAINING_STEPS // 40)
    optimizer = LazySGD(rate, max_updates=TRAINING_STEPS if age else 1000)
    model.compile(optimizer)
    model.build_optimizers()
    if age:
        classifier = model.classifier
        optimizer.iterations.assign(age)
        classifier.ids.assign(tf.range(classifier.slots, dtype=tf.int64))
        for rows in (classifier.weights_ring, classifier.store.weights):
            rows.assign(tf.fill(rows.shape, 0.01))
        classifier.store.stamp.assign(tf.ones_like(classifier.store.stamp))
