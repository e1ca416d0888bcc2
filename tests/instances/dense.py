"""Dense reference in float64: SGD over the full [N, D] table of rows, Eq. 1 and Eq.

2 as they stand.
"""

import numpy as np


class DensePIC:
    """A linear encoder z = x A and all rows, every one updated every step.

    The denominator holds the instances among the last `num_negatives` views, or all of them.
    With `frozen`, rows outside it stay as they are: the paper's ablation without correction. With
    `forget_after`, a row outside it for more steps begins anew.
    """

    def __init__(
        self,
        encoder,
        rows,
        num_negatives,
        temperature,
        momentum,
        weight_decay,
        dot=False,
        frozen=False,
        forget_after=0,
    ):
        self.encoder, self.rows = encoder.astype(np.float64), rows.astype(np.float64)
        self.encoder_momentum, self.row_momentum = (
            np.zeros_like(self.encoder),
            np.zeros_like(self.rows),
        )
        self.k, self.tau, self.m, self.decay = num_negatives, temperature, momentum, weight_decay
        self.dot, self.frozen = dot, frozen
        self.forget_after, self.first_rows = forget_after, self.rows.copy()
        self.views = []  # batches of instance ids, the newest last
        self.recent = None

    def step(self, x, ids, rate, weights=None, share=0.0, replicas=1):
        """One update; returns mean loss and accuracy before it.

        An image of weight 0 is as if it had not come. A `share` is that of the second image in the
        mixed views and their targets; the images of a replica are mixed with one another.
        """
        b = len(ids)
        mirror = np.arange(b).reshape(replicas, -1)[:, ::-1].ravel()
        seen = np.ones(b, bool) if weights is None else weights > 0
        shares = share * (seen & seen[mirror])[:, None]
        x = (1 - shares) * x + shares * x[mirror]
        target = np.zeros((b, len(self.rows)))
        target[np.arange(b), ids] += 1 - shares[:, 0]
        target[np.arange(b), ids[mirror]] += shares[:, 0]
        x, ids, target = x[seen], ids[seen], target[seen]
        if self.forget_after:
            self._forget(ids)
        self.views.append(set(ids))
        self.recent = np.zeros(len(self.rows), bool)
        if self.k == len(self.rows):
            self.recent[:] = True
        else:
            self.recent[list(set().union(*self.views[-(self.k // b) :]))] = True

        z = x.astype(np.float64) @ self.encoder
        unit_z, z_length = (z, None) if self.dot else _unit(z)
        unit_w, w_length = (self.rows, None) if self.dot else _unit(self.rows)
        logits = unit_z @ unit_w.T / self.tau
        logits[:, ~self.recent] = -np.inf
        log_p = logits - np.log(
            np.sum(np.exp(logits - logits.max(1, keepdims=True)), 1, keepdims=True)
        )
        log_p -= logits.max(1, keepdims=True)
        accuracy = np.mean(log_p.argmax(1) == ids)
        of_logits = (np.exp(log_p) - target) / (b * self.tau)
        of_z, of_w = of_logits @ unit_w, of_logits.T @ unit_z
        if not self.dot:
            of_z = (of_z - unit_z * np.sum(unit_z * of_z, 1, keepdims=True)) / z_length
            of_w = (of_w - unit_w * np.sum(unit_w * of_w, 1, keepdims=True)) / w_length

        moving = self.recent[:, None] if self.frozen else True
        self.row_momentum = np.where(
            moving, self.m * self.row_momentum + of_w + self.decay * self.rows, self.row_momentum
        )
        self.rows = np.where(moving, self.rows - rate * self.row_momentum, self.rows)
        of_encoder = x.astype(np.float64).T @ of_z
        self.encoder_momentum = (
            self.m * self.encoder_momentum + of_encoder + self.decay * self.encoder
        )
        self.encoder = self.encoder - rate * self.encoder_momentum
        losses = -np.sum(target * np.where(target > 0, log_p, 0.0), 1)  # rows at rest have -inf
        return losses.mean(), accuracy

    def _forget(self, ids):
        steps, live = len(self.views), self.k // len(ids)
        for i in ids:
            visits = [t for t, batch in enumerate(self.views) if i in batch]
            if visits and steps - (visits[-1] + live) > self.forget_after:
                self.rows[i], self.row_momentum[i] = self.first_rows[i], 0.0


def _unit(x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / length, length
