"""What a study says in words: who is best, who is tied, and what cannot be told."""

import numpy as np
import pytest

from mbpo_jax.laboratory.report.conclusions import conclusions
from mbpo_jax.laboratory.report.figures import _up_to
from mbpo_jax.laboratory.report.tables import HEADINGS, table_of


def row(estimator: str, error: float, interval: tuple[float, float], **changes) -> dict:
    """Return a row of a study whose reference has the norm 2."""
    return {
        "estimator": estimator,
        "horizon": 5,
        "batch_size": 16,
        "reference": "exact",
        "reference_norm": 2.0,
        "reference_error": 0.01,
        "overflowed": False,
        "heavy_tailed": False,
        "biased_by_design": False,
        "dtype": "float64",
        "mean_squared_error": error,
        "mean_squared_error_interval": list(interval),
        "error_at_equal_flops": error,
        "variance": error,
        "variance_interval": list(interval),
        "squared_bias": 0.4,
        "squared_bias_interval": [0.2, 0.6],
        "snr_db": 1.0,
        "cosine": 0.5,
        "required_batch": 3.0,
        "model_evaluations": 100,
        "vjps": 10,
        "seconds": 0.1,
        **changes,
    }


def test_the_best_estimator_is_named_with_those_that_are_tied_with_it():
    rows = [
        row("rp", 1.0, (0.8, 1.3)),
        row("lr", 1.2, (1.0, 1.5)),
        row("es", 9.0, (8.0, 9.5)),
    ]
    (line,) = conclusions(rows)
    assert line.startswith("H = 5, B = 16: rp has the least mean squared error (tied with lr)")
    (line,) = conclusions([rows[0], rows[2]])
    assert "tied" not in line


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([0.2, 0.6], "0.1"),  # of the squared norm, 4
        ([-0.1, 0.4], "< 0.1"),
        ([-0.4, -0.1], "0"),
        ([-1.0, 4.1], "too noisy to tell"),  # as large as the gradient, perhaps
        ([-1e5, 1e5], "too noisy to tell"),
    ],
)
def test_a_bias_is_told_as_far_as_the_noise_lets_it(ends, told):
    _, cells = table_of([row("rp", 1.0, (0.8, 1.3), squared_bias_interval=ends)])
    assert cells[HEADINGS.index("bias² / |g|²")] == told


def test_a_guide_ends_where_it_leaves_the_axes():
    """A power of H is a straight line there, so its end is known."""
    for power, wanted in ((2.0, 10.0**0.5), (0.5, 16.0)):
        x, y = _up_to((1.0, 10.0), [1, 2, 4, 8, 16], power * np.log([1, 2, 4, 8, 16]))
        assert (x[-1], y[-1]) == pytest.approx((wanted, min(wanted**power, 10.0)))
        assert max(y) <= 10.0 * (1 + 1e-12)
    # What comes back is drawn to its end; what is not known is left out, without a warning.
    assert list(_up_to((1.0, 10.0), [1, 2, 4], np.log([5.0, 20.0, 5.0]))[0]) == pytest.approx(
        [1, 2, 4]
    )
    assert list(_up_to((1.0, 10.0), [1, 2, 4], [0.0, -np.inf, np.nan])[1]) == [1.0]
    assert _up_to((1.0, 10.0), [1, 2], [0.0, 4000.0])[1][-1] == pytest.approx(10.0)
