"""Logistic regression on features that do not change: a linear probe in seconds."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # scikit-learn requires it
from tqdm.auto import tqdm

from pic_tf.files.progress import drawing_interval

# Inverse regularisation C of scikit-learn, smallest first.
_STRENGTHS = tuple(10.0**e for e in range(-5, 2))
_MAX_ITERATIONS = 1000
_NEVER = -1e9  # logit of a class without an image: its probability is 0
_SMALL = 20_000_000  # numbers in the features that one thread does quickly


class Regression(NamedTuple):
    """Outcome of a logistic regression.

    Attributes:
      probabilities: float64 [q, classes] of the queries, for the classes 0 ... max(labels).
      strength: C, inverse regularisation.
      kernel: float64 [C, classes], W of the probabilities softmax(x W + b) of features x.
      bias: float64 [classes], b; far below all others for a class without an image.
    """

    probabilities: np.ndarray
    strength: float
    kernel: np.ndarray
    bias: np.ndarray


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    seed: int,
    strength: float | None = None,
) -> Regression:
    """Predict class probabilities by L2-regularised soft-max regression, solved by L-BFGS.

    min_W  |W|^2 / 2 + C sum_i -log softmax(W x_i + b)[y_i], with the x scaled to mean 0 and
    variance 1 by channel. Of two classes |W| is that of the difference of their rows, as
    scikit-learn has it.

    Args:
      features: float [n, C] of labelled images.
      labels: int64 [n].
      queries: float [q, C].
      seed: seed of the draw of images to choose the strength by.
      strength: C; None for the best of 1e-5 ... 10 on a tenth of the labelled images, held out.

    Returns:
      The probabilities, C, and the classifier for features that are not scaled.

    Raises:
      ValueError: for labels of one class only.

    Source: scikit-learn's `LogisticRegression`; choosing C: Kornblith et al. 2019
    (https://arxiv.org/abs/1805.08974), Section 2.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("expected labelled images of at least 2 classes, got 1")
    scaler = StandardScaler().fit(features)
    x = scaler.transform(features)
    if strength is None:
        strength = _best_strength(x, labels, seed)
    model = _fit(x, labels, strength)
    probabilities = np.zeros([len(queries), int(labels.max()) + 1])
    probabilities[:, model.classes_] = model.predict_proba(scaler.transform(queries))
    kernel, bias = _unscaled(model, scaler, probabilities.shape[1])
    return Regression(probabilities, strength, kernel, bias)


def _unscaled(
    model: LogisticRegression, scaler: StandardScaler, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """W and b for features as they are: (x - mean) / std is taken into them."""
    weights, intercept = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:  # scikit-learn has one row of weights, for the second class
        weights, intercept = (np.stack([0 * x[0], x[0]]) for x in (weights, intercept))
    weights = weights / scaler.scale_
    kernel, bias = np.zeros([weights.shape[1], classes]), np.full(classes, _NEVER)
    kernel[:, model.classes_] = weights.T
    bias[model.classes_] = intercept - weights @ scaler.mean_
    return kernel, bias


def _best_strength(x: np.ndarray, labels: np.ndarray, seed: int) -> float:
    rare = np.bincount(labels)[labels] < 2  # a class of one image cannot be on both sides
    held_out = min(max(len(labels) // 10, len(np.unique(labels))), len(labels) - 1)
    stratify = labels if not rare.any() and held_out < len(labels) / 2 else None
    fit, check, fit_labels, check_labels = train_test_split(
        x, labels, test_size=held_out, random_state=seed, stratify=stratify
    )
    if len(np.unique(fit_labels)) < 2:
        return 1.0
    bar = tqdm(_STRENGTHS, "logistic regression", mininterval=drawing_interval())
    scores = [_fit(fit, fit_labels, strength).score(check, check_labels) for strength in bar]
    return _STRENGTHS[int(np.argmax(scores))]  # the strongest regularisation among equals


def _fit(x: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    # Threads that wait for each other slow small problems down many times beside other programs.
    with threadpool_limits(1 if x.size < _SMALL else None):
        return LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(x, labels)
