"""Instance soft-max over the live rows of all replicas (Eq. 1), with its gradient written out."""

import tensorflow as tf

from pic_tf.instances.mixing import Partners
from pic_tf.replicas.collectives import all_gather, all_sum, own_part

SIMILARITIES = ("cosine", "dot")
_MASKED = -1e30  # a logit whose exponential is 0
_LEAST = 1.2e-38  # normal in float32, and less than the sum over one live row, exp(-87) at least
_TIE = 1e-5  # relative: a row's logit from two products of another order differs by rounding


@tf.custom_gradient
def unit_rows(x: tf.Tensor):
    """Normalise rows, x / |x| of float [n, D]; rows shorter than 1e-18 tend to zero instead."""
    # Down to a norm of 1e-18, where float32 squares vanish; l2_normalize stops at 1e-6.
    scale = tf.math.rsqrt(tf.maximum(tf.reduce_sum(x * x, axis=1, keepdims=True), 1e-36))
    unit = x * scale

    def gradient(of_unit: tf.Tensor) -> tf.Tensor:
        # Written out it passes over the [K, D] rows three times less than autodiff.
        return scale * (of_unit - unit * tf.reduce_sum(of_unit * unit, axis=1, keepdims=True))

    return unit, gradient


@tf.autograph.experimental.do_not_convert
def instance_softmax(
    embedding: tf.Tensor,
    weights: tf.Tensor,
    slots: tf.Tensor,
    live: tf.Tensor,
    temperature: float,
    similarity: str = "cosine",
    label_smoothing: float = 0.0,
    partners: Partners | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute each view's cross-entropy against the live rows, and whether its own row won.

    loss_b = -log( exp(s(w_yb, z_b) / tau) / sum_{j live} exp(s(w_j, z_b) / tau) ),
    s(w, z) = w.z / (|w| |z|) (cosine) or w.z (dot).

    With label smoothing e the target is 1 - e on the own row and e shared among all live ones:
    s(w_yb, z_b) above becomes (1 - e) s(w_yb, z_b) + e mean_{j live} s(w_j, z_b). In a mixed view
    the partner y' has a share c of the own row's: s(w_yb, z_b) becomes
    (1 - c) s(w_yb, z_b) + c s(w_y'b, z_b).

    Each of R replicas holds b = B / R views, the rows of those views' instances among its K / R
    rows, and gets the loss of its own views against the live rows of all. The gradient is that of
    the sum of all replicas' losses, so a replica's share of a mean over the batch is
    `sum(loss) / B`.

    Args:
      embedding: float [b, D], z.
      weights: float32 [K / R, D], w.
      slots: int [b], the row of each view's own instance, y.
      live: bool [K / R], True for rows that take part; the own rows do.
      temperature: tau > 0.
      similarity: "cosine" (the paper's) or "dot" (the standard soft-max it is compared with).
      label_smoothing: e in [0, 1).
      partners: second images of mixed views, of this replica's own; None without any.

    Returns:
      loss float32 [b], correct bool [b].

    Source: paper, Eq. 1 and Table 1.
    """
    embedding = tf.cast(embedding, tf.float32)
    if similarity == "cosine":
        embedding, weights = unit_rows(embedding), unit_rows(weights)
    # A cosine lies in [-1, 1], so exp(logit - 1 / tau) cannot overflow and partial sums simply add.
    # It cannot underflow either while 2 / tau is below the 87 that float32 holds; else each view's
    # largest logit is taken off.
    bounded = similarity == "cosine" and 2.0 / temperature < 87.0
    bound = 1.0 / temperature if bounded else None
    queries = embedding / temperature
    loss, correct = _cross_entropy(queries, weights, slots, live, bound, label_smoothing)
    if label_smoothing:
        loss -= label_smoothing * tf.linalg.matvec(queries, _mean_row(weights, live))
    if partners is not None:
        nearer = tf.gather(weights, slots) - tf.gather(weights, partners.slots)
        own_lead = tf.reduce_sum(queries * nearer, axis=1)
        loss += (1.0 - label_smoothing) * partners.share * own_lead
    return loss, correct


def _mean_row(weights: tf.Tensor, live: tf.Tensor) -> tf.Tensor:
    """Average the live rows of all replicas, float32 [D]."""
    counted = tf.cast(live, tf.float32)
    total = tf.linalg.matvec(weights, counted, transpose_a=True)
    sums = all_sum(tf.concat([total, [tf.reduce_sum(counted)]], axis=0))
    return sums[:-1] / tf.maximum(sums[-1], 1.0)


def _cross_entropy(
    queries: tf.Tensor,
    weights: tf.Tensor,
    slots: tf.Tensor,
    live: tf.Tensor,
    bound: float | None,
    e: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute log sum_{j live} exp(q.w_j) - (1 - e) q.w_y and q.w_y >= max_{j live} q.w_j.

    `bound` is an upper bound of every logit, or None to look for it. The gradient is written out
    because it then passes over the [B, K / R] matrix in two products only, where autodiff makes
    four more passes, and because autodiff through sums over replicas that every replica uses counts
    them R times.
    """

    def kept(x: tf.Tensor) -> tf.Tensor:
        return (1.0 - e) * x if e else x

    @tf.custom_gradient
    def cross_entropy(queries: tf.Tensor, weights: tf.Tensor):
        own_weights = tf.gather(weights, slots)
        own_logit = tf.reduce_sum(queries * own_weights, axis=1)  # [b]
        everyone = all_gather(tf.concat([queries, own_logit[:, None]], axis=1))  # [B, D + 1]
        all_queries, all_own = everyone[:, :-1], everyone[:, -1]
        # As a bias, mask and shift cost no pass of their own: TensorFlow fuses it with the product.
        bias = tf.where(live, -(bound or 0.0), _MASKED)
        logits = tf.nn.bias_add(tf.matmul(all_queries, weights, transpose_b=True), bias)
        shift = tf.fill(tf.shape(all_own), bound or 0.0)
        if bound is None:
            # There is no maximum over replicas, so all B maxima of each are gathered.
            shift = tf.reduce_max(all_gather(tf.reduce_max(logits, axis=1)[None]), axis=0)
            logits -= shift[:, None]
        exponentials = tf.exp(logits)  # [B, K / R]
        beaten = tf.reduce_max(exponentials, axis=1) > (1.0 + _TIE) * tf.exp(all_own - shift)
        sums = tf.stack([tf.reduce_sum(exponentials, axis=1), tf.cast(beaten, tf.float32)])
        total, beaten = tf.unstack(all_sum(sums))
        # Where no row is live, all images have weight 0: 0 times a loss that is finite.
        total = tf.maximum(total, _LEAST)
        loss = tf.math.log(own_part(total)) + own_part(shift) - kept(own_logit)
        correct = own_part(beaten) == 0.0

        def gradient(of_loss: tf.Tensor, _):
            # d loss_b / d logit_bj = p_bj - (1 - e) [j = y_b], p = exponentials / total.
            scale = (all_gather(of_loss) / total)[:, None]
            expected = all_sum(scale * tf.matmul(exponentials, weights))  # sum_j p_bj w_j
            of_queries = own_part(expected) - kept(of_loss)[:, None] * own_weights
            # To transpose the product of [D, B] and [B, K] is faster than to transpose [B, K].
            of_weights = tf.matmul(scale * all_queries, exponentials, transpose_a=True)
            of_weights = tf.transpose(of_weights)
            own = kept(of_loss)[:, None] * queries
            return of_queries, tf.tensor_scatter_nd_sub(of_weights, slots[:, None], own)

        return (loss, correct), gradient

    return cross_entropy(queries, weights)
