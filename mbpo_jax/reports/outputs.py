"""How well the model predicts each of its outputs: the reward and what is observed, by name."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import BLUE, GREY

_SHARE = "model/holdout_r2/"
_WORST = "worst_"
_LOWEST = -0.5
"""Shares below it are drawn at the edge: how much worse than the mean a prediction is tells
little."""


def explained_shares(metrics: Sequence[Row], names: Sequence[str] = ()) -> dict[str, list[float]]:
    """Return by output its share of explained variance (R2) in each run, at the last moment.

    Of many components a run reports the worst alone, which may be others in each run.

    Args:
      metrics: rows of metrics.
      names: of the observation's components, from the first one on; others are numbered.
    """
    newest = max((row["env_steps"] for row in metrics if _shares(row)), default=None)
    shares: dict[str, list[float]] = {}
    for row in metrics:
        if row["env_steps"] == newest:
            for output, value in _shares(row).items():
                shares.setdefault(output, []).append(value)

    def place(output: str) -> int:
        number = output.removeprefix("observation_")
        return int(number) if number.isdecimal() else -1

    def label(output: str) -> str:
        known = 0 <= place(output) < len(names)
        return names[place(output)] if known else output.replace("_", " ")

    return {label(output): shares[output] for output in sorted(shares, key=place)}


def draw_shares(panel: Axes, shares: Mapping[str, Sequence[float]]) -> None:
    """Draw the shares of explained variance, a row for each output: median and range of runs."""
    places = np.arange(len(shares))
    values = [np.maximum(each, _LOWEST) for each in shares.values()]
    for place, each in zip(places, values, strict=True):
        panel.plot([np.min(each), np.max(each)], [place, place], color=BLUE, alpha=0.4, linewidth=3)
    panel.plot([np.median(each) for each in values], places, "o", color=BLUE, clip_on=False)
    panel.axvline(1.0, color=GREY, linewidth=1)
    panel.set_xlim(min(0.0, *(np.min(each) for each in values)) - 0.02, 1.02)
    panel.set_yticks(places, list(shares))
    panel.set_ylim(len(shares) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")
    panel.set_xlabel(
        "Share of the variance of held-out transitions\nthat the last fit explains (R²)"
    )


def _shares(row: Row) -> dict[str, float]:
    """Return a row's shares by output, those of the worst components by theirs."""
    found = {}
    for name, value in row.items():
        output = name.removeprefix(_SHARE)
        if not name.startswith(_SHARE) or value is None or output.startswith("quantile_"):
            continue
        if not output.startswith(_WORST):
            found[output] = value
        elif not output.endswith("_component"):
            component = row.get(f"{name}_component")
            if component is not None:
                found[f"observation_{int(component)}"] = value
    return found
