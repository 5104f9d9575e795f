"""How far an estimate made in a model is from the gradient in the true system, and why.

    estimate - truth = (E1(model) - E1(true)) + (E[estimate] - E1(model)) + noise

where E1 is the gradient of the return. The mean square of the left side is the sum of the squared
model bias, of the squared estimator bias, of twice the product of the two, by which they may cancel
each other, and of the estimator's variance.
"""

from typing import NamedTuple

import numpy as np

from mbpo_jax.laboratory.measures import jackknife


class Split(NamedTuple):
    """Parts of a mean squared error; any but the variance may come out below 0 by chance.

    Attributes:
      model_bias: squared.
      estimator_bias: squared.
      cross: twice the product of the two.
      variance: of one estimate.
    """

    model_bias: float
    estimator_bias: float
    cross: float
    variance: float

    @property
    def total(self) -> float:
        """The mean squared error of one estimate."""
        return sum(self)


class Grams(NamedTuple):
    """Inner products of estimates `g_i` and of draws of both gradients, `l_j` and `t_j`.

    `l_j` and `t_j` are unbiased for the gradient in the model and in the true system, and share
    their noise as far as they can. The estimates are independent of them.

    Attributes:
      gg: `[M, M]`.
      gl: `[M, N]`.
      gt: `[M, N]`.
      ll: `[N, N]`.
      lt: `[N, N]`.
      tt: `[N, N]`.
    """

    gg: np.ndarray
    gl: np.ndarray
    gt: np.ndarray
    ll: np.ndarray
    lt: np.ndarray
    tt: np.ndarray


def grams(estimates: np.ndarray, model: np.ndarray, true: np.ndarray) -> Grams:
    """Return the inner products of estimates `[M, P]` and draws of either gradient `[N, P]`."""
    g, m, t = (np.asarray(x, np.float64) for x in (estimates, model, true))
    return Grams(g @ g.T, g @ m.T, g @ t.T, m @ m.T, m @ t.T, t @ t.T)


def product(inner: np.ndarray) -> float:
    """Return the inner product of two means, without bias, from that of all rows `[N, N]`.

    Rows of the same number share their noise and are left out. One row alone is an exact gradient.
    """
    rows = len(inner)
    if rows == 1:
        return float(inner[0, 0])
    return float((inner.sum() - np.trace(inner)) / (rows * (rows - 1)))


def split(inner: Grams) -> Split:
    """Estimate the parts without bias."""
    gg, ll, lt, tt = (product(x) for x in (inner.gg, inner.ll, inner.lt, inner.tt))
    gl, gt = float(inner.gl.mean()), float(inner.gt.mean())
    rows = len(inner.gg)
    variance = (np.trace(inner.gg) - inner.gg.sum() / rows) / (rows - 1)
    return Split(
        model_bias=ll - 2.0 * lt + tt,
        estimator_bias=gg - 2.0 * gl + ll,
        cross=2.0 * (gl - gt - ll + lt),
        variance=float(variance),
    )


def resampled(inner: Grams, estimates: np.ndarray, draws: np.ndarray) -> Grams:
    """Return the inner products of chosen rows `[M]` and `[N]`."""
    within, across = np.ix_(draws, draws), np.ix_(estimates, draws)
    return Grams(
        inner.gg[np.ix_(estimates, estimates)],
        inner.gl[across],
        inner.gt[across],
        inner.ll[within],
        inner.lt[within],
        inner.tt[within],
    )


def standard_errors(inner: Grams) -> tuple[Split, float]:
    """Return standard errors of all parts and of their total; NaN of fewer than three estimates."""

    def parts(estimates: np.ndarray, draws: np.ndarray) -> np.ndarray:
        found = split(resampled(inner, estimates, draws))
        return np.array([*found, found.total])

    errors = jackknife.standard_errors(parts, len(inner.gg), len(inner.ll))
    if errors is None:
        return Split(*[np.nan] * len(Split._fields)), np.nan
    return Split(*errors[:-1]), float(errors[-1])
