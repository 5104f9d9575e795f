"""Tables of a gradient study, as cells of text."""

from collections.abc import Callable, Sequence

from mbpo_jax.files import Row


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as a table shows it; a dash for one that is not known."""
    return "-" if value is None else f"{value:.{digits}g}"


HEADINGS = (
    "estimator",
    "H",
    "B",
    "variance / |g|²",
    "95 % interval",
    "SNR (dB)",
    "bias² / |g|²",
    "MSE / |g|²",
    "cosine",
    "B for SNR 1",
    "model evaluations",
    "VJPs",
    "ms",
)
SPLIT_HEADINGS = (
    "model bias² / |t|²",
    "estimator bias² / |t|²",
    "cross / |t|²",
    "variance / |t|²",
    "error / |t|²",
)
"""Against the gradient t in the true system."""


def table_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return headings and cells of a study's rows; `|g|` is the norm of the reference.

    Numbers with a star are not divided, as the reference is no larger than its own error.
    """
    against_truth = any("split_total" in row for row in rows)
    head = [*HEADINGS, *(SPLIT_HEADINGS if against_truth else ()), "remark"]
    return [head, *([*_cells(row), *_split_cells(row), remark(row)] for row in rows)]


def _split_cells(row: Row) -> list[str]:
    """Return the parts of the error against the true system, each with twice its standard error."""
    if "split_total" not in row:
        return []
    square = row["true_squared_norm"]

    def part(name: str) -> str:
        value, error = row[f"split_{name}"], row[f"split_{name}_error"]
        if value is None or not square > 0.0:
            return "-"
        return f"{value / square:.2g} ± {2.0 * error / square:.1g}"

    parts = [part(name) for name in ("model_bias", "estimator_bias", "cross", "variance")]
    total = row["split_total"]
    return [*parts, number(None if total is None or not square > 0.0 else total / square)]


def _cells(row: Row) -> list[str]:
    square = row["reference_norm"] ** 2

    def share(value: float | None) -> str:
        # Without a norm to compare with, the number itself, and a star.
        return number(value and value / square) if square > 0.0 else f"{number(value)}*"

    ends = row["variance_interval"]
    return [
        row["estimator"],
        str(row["horizon"]),
        str(row["batch_size"]),
        share(row["variance"]),
        f"{share(ends[0])} to {share(ends[1])}" if ends else "-",
        number(row["snr_db"]),
        _bias(row, share),
        share(row["mean_squared_error"]),
        number(row["cosine"], 2),
        number(row["required_batch"], 2),
        f"{row['model_evaluations']:,}",
        f"{row['vjps']:,}",
        number(1e3 * row["seconds"]),
    ]


def _bias(row: Row, share: Callable[[float | None], str]) -> str:
    """Return the squared bias; what it is below, if it may be 0; or that not even this is told.

    A bound says nothing where it is above the squared norm of the reference.
    """
    ends = row["squared_bias_interval"]
    if ends and ends[0] <= 0.0:
        if ends[1] > row["reference_norm"] ** 2:
            return "too noisy to tell"
        return f"< {share(ends[1])}" if ends[1] > 0.0 else "0"
    return share(row["squared_bias"])


def remark(row: Row) -> str:
    """Say why a row has no variance, or that its estimator is biased by design."""
    if row["overflowed"]:
        return f"overflow in {row['dtype']}"
    if row["heavy_tailed"]:
        return "heavy tails: variance not estimable"
    return "biased by design" if row["biased_by_design"] else ""


COST_HEADINGS = (
    "estimator",
    "H",
    "B",
    "V x evaluations",
    "V x VJPs",
    "V x FLOPs",
    "V x s",
    "log10 V / V(first), 95 %",
    "effective rank",
    "largest share",
    "tail index",
    "log10 half squared distances: 5, 50, 95 %",
)


def cost_table_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return what precision costs and how estimates spread; V is the variance of an estimate."""
    return [list(COST_HEADINGS), *(_cost_cells(row) for row in rows)]


def _cost_cells(row: Row) -> list[str]:
    ratio, ends = row["log10_variance_ratio"], row["log10_variance_ratio_interval"]
    spread = row["log10_half_squared_distances"]
    return [
        row["estimator"],
        str(row["horizon"]),
        str(row["batch_size"]),
        *(
            number(row[f"variance_times_{price}"])
            for price in ("model_evaluations", "vjps", "flops", "seconds")
        ),
        "-" if ratio is None else f"{ratio:.2f} ({ends[0]:.2f} to {ends[1]:.2f})",
        number(row["effective_rank"]),
        number(row["largest_share"], 2),
        number(row["hill_index"], 2),
        ", ".join(number(spread[i]) for i in (1, 3, 5)) if spread else "-",
    ]
