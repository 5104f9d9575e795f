"""What the rows of a gradient study say, in sentences."""

from collections.abc import Sequence

import numpy as np

from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.tables import remark
from mbpo_jax.reports import page


def conclusions(rows: Sequence[Row], stability: Sequence[Row] = ()) -> list[str]:
    """Say in a sentence per horizon and batch size which estimators have the least error.

    And where the reference is too noisy for a bias, or for numbers relative to it, and how large
    the Jacobians' product is where gradients overflowed.
    """
    lines = []
    growth = {row["horizon"]: row["log10_second_moment"] for row in stability}
    for horizon in dict.fromkeys(row["horizon"] for row in rows if row["overflowed"]):
        if np.isfinite(growth.get(horizon, np.nan)):
            lines.append(
                f"H = {horizon}: gradients overflow; in logarithms, the mean square of the "
                f"Jacobians' product is 10^{growth[horizon]:.1f}"
            )
    for horizon in dict.fromkeys(row["horizon"] for row in rows):
        row = next(row for row in rows if row["horizon"] == horizon)
        norm, error = row["reference_norm"], row["reference_error"]
        if norm**2 < 10.0 * error**2:
            lines.append(
                f"H = {horizon}: the reference ({row['reference']}) has the norm {norm:.3g} and an "
                f"error of {error:.3g}, so biases and relative numbers are rough; raise "
                "--reference-batches"
            )
    for horizon, size in dict.fromkeys((r["horizon"], r["batch_size"]) for r in rows):
        own = [r for r in rows if (r["horizon"], r["batch_size"]) == (horizon, size)]
        known = [r for r in own if r["error_at_equal_flops"] is not None]
        told = f"H = {horizon}, B = {size}: "
        if not known:
            told += "no variance could be told"
        else:
            least, *others = not_worse(known)
            told += f"{least} has the least mean squared error"
            told += " against the true gradient" if "split_total" in known[0] else ""
            told += f" (tied with {page.few(others)})" if others else ""
            if "split_total" not in known[0]:
                cheapest = min(known, key=lambda r: r["error_at_equal_flops"])["estimator"]
                told += ", also" if cheapest == least else f"; {cheapest} has it"
                told += " at equal FLOPs"
        unknown = [f"{r['estimator']} ({remark(r)})" for r in own if r not in known]
        lines.append(told + (f"; not estimable: {page.few(unknown)}" if unknown else ""))
    return lines


def not_worse(rows: Sequence[Row]) -> list[str]:
    """Return the estimator of least mean squared error, then those whose intervals reach its own.

    Errors are those against the true system where there is one.
    """

    def error(row: Row) -> tuple[float, float, float]:
        if "split_total" not in row:
            low, high = row["mean_squared_error_interval"] or (row["mean_squared_error"],) * 2
            return row["mean_squared_error"], low, high
        reach = 2.0 * (row["split_total_error"] or 0.0)
        return row["split_total"], row["split_total"] - reach, row["split_total"] + reach

    first, *others = sorted(rows, key=error)
    end = error(first)[2]
    return [first["estimator"], *(row["estimator"] for row in others if error(row)[1] <= end)]
