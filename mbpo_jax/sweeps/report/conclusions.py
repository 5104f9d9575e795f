"""What a sweep says, in sentences that follow from its numbers and their intervals."""

from collections.abc import Sequence

import numpy as np

from mbpo_jax.files import Row
from mbpo_jax.reports import page, statistics
from mbpo_jax.sweeps.report.summary import (
    RETURNS,
    Variant,
    environments_of,
    ranked,
    shown,
    with_interval,
)

MOST_NAMES = 3
"""Variants that a sentence names."""
TOO_FEW = 3
"""Seeds whose intervals are too short: of 100 pairs of equal variants with normal returns, ten have
intervals that do not meet. With four seeds it is three pairs, with five two."""


def conclusions(variants: Sequence[Variant], rows: Sequence[Row]) -> list[str]:
    """Say how much is done, which variant is best where, which are tied with it, what to mind."""
    trained = sum(row["trained"] for row in rows)
    lines = [
        f"All {trained} runs are trained."
        if trained == len(rows)
        else f"{trained} of {len(rows)} runs are trained."
    ]
    if diverged := sum(bool(row["diverged"]) for row in rows):
        lines.append(
            f"{counted(diverged, 'run')} became non-finite and "
            f"{'counts' if diverged == 1 else 'count'} with the last finite parameters."
        )
    if failed := sorted({row["group"] for row in rows if row["state"] == "failed"}):
        lines.append(f"Failed groups: {page.few(failed, len(failed))}.")
    alone = len({field for v in variants for field in v.settings}) == 1
    for environment in environments_of(variants):
        by_final, by_mean = (ranked(variants, environment, column) for column in RETURNS)
        if not by_final:
            continue
        sentences = [standing(by_final, "final_return", alone)]
        if len(by_mean) > 1:
            sentences.append(standing(by_mean, "mean_return", alone, by_final[0]))
        left = sum(v.environment == environment and v.trained < v.size for v in variants)
        if left:
            is_or_are = "is" if left == 1 else "are"
            sentences.append(f"{counted(left, 'variant')} {is_or_are} not trained to the end")
        so_far = ", so far" if left else ""
        lines.append(f"{environment}{so_far}: {'. '.join(sentences)}.")
    if unknown := sum(0 < len(v.rows) < statistics.FEWEST for v in variants):
        lines.append(
            f"{counted(unknown, 'variant')} {'has' if unknown == 1 else 'have'} fewer than "
            f"{statistics.FEWEST} seeds and so no interval: how far chance goes is not known."
        )
    if any(len(v.rows) == TOO_FEW for v in variants):
        lines.append(
            f"Intervals of {TOO_FEW} seeds are too short: one of ten pairs of equals would not be "
            "tied. More seeds tell."
        )
    return lines


def standing(
    own: Sequence[Variant], column: str, alone: bool, before: Variant | None = None
) -> str:
    """Say which variant is best by one of the returns, and which are tied with it.

    Args:
      own: the variants of an environment that can be compared, the best first.
      column: of `RETURNS`.
      alone: variants differ in one setting alone.
      before: the best one of the sentence before, if there is one.

    Returns:
      A sentence without its stop.
    """
    best, *others = own
    middle = best.middle(column)
    name = "it" if best is before else spoken(best, alone)
    value = with_interval(middle)
    if before is None:
        start, reached = name, f"a {RETURNS[column]} of {value}"
    else:
        start, reached = f"By {RETURNS[column]} {name}", value
    if not others:
        return f"{start} has {reached}"
    if not np.isfinite(middle.low):
        return f"{start} is highest, with {reached}"
    known = [v for v in others if len(v.rows) >= statistics.FEWEST]
    tied = [spoken(v, alone) for v in known if v.middle(column).high >= middle.low]
    if len(tied) == len(others) >= MOST_NAMES:
        return f"{start} is highest, with {reached}; all {len(tied)} others are tied with it"
    text = f"{start} is best, with {reached}"
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        text += f"; {page.few(tied, MOST_NAMES)} {verb} tied with it"
    elif len(known) == len(others):
        text += ", and none is tied with it"
    return text


def spoken(variant: Variant, alone: bool) -> str:
    """Return what sentences call a variant: SAC, SAC at 3e-4, MVE (horizon 3, tau 0.01).

    Args:
      variant: which.
      alone: variants differ in one setting alone, whose value is enough if it has a fraction.
    """
    told = variant.told_settings
    if not told:
        return variant.algorithm
    if len(told) > 1:
        return f"{variant.algorithm} ({', '.join(told)})"
    (value,) = variant.settings.values()
    short = alone and isinstance(value, float)
    return f"{variant.algorithm} at {shown(value) if short else told[0]}"


def counted(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
