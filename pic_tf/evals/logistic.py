"""Logistic regression on features that do not change: a linear probe in seconds."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # scikit-learn requires it
from tqdm import tqdm

from pic_tf.files.progress import drawing_interval

# Inverse regularisation C of scikit-learn, smallest first.
_STRENGTHS = tuple(10.0**e for e in range(-5, 2))
_MAX_ITERATIONS = 1000
_SMALL = 20_000_000  # numbers in the features that one thread does quickly


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    seed: int,
    strength: float | None = None,
) -> tuple[np.ndarray, float]:
    """Predict class probabilities by L2-regularised soft-max regression, solved by L-BFGS.

    min_W  |W|^2 / 2 + C sum_i -log softmax(W x_i + b)[y_i], with the x scaled to mean 0 and
    variance 1 by channel.

    Args:
      features: float [n, C] of labelled images.
      labels: int64 [n].
      queries: float [q, C].
      seed: seed of the draw of images to choose the strength by.
      strength: C; None for the best of 1e-5 ... 10 on a tenth of the labelled images, held out.

    Returns:
      (float64 [q, classes] probabilities of the classes 0 ... max(labels), C).

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
    return probabilities, strength


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
