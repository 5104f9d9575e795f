"""How gradient estimators did while a run trained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import THOUSANDS, figure_style
from mbpo_jax.reports.gradients import by_estimator, estimator_styles, with_legend


def tracking_figure(rows: Sequence[Row], title: str) -> Figure:
    """Draw signal-to-noise ratio and bias of estimates over training, means over runs.

    Args:
      rows: of `training.tracking`. A bias is against the gradient in the true system, so it holds
        the model's.
      title: heading.
    """
    drawn = {
        "Signal-to-noise ratio of an estimate (dB)": lambda row: row["snr_db"],
        "Squared bias over the squared norm\nof the true gradient": _relative_bias,
    }
    styles = estimator_styles(rows)
    with figure_style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, (label, value) in zip(panels, drawn.items(), strict=True):
            for name, own in by_estimator(rows).items():
                points: dict[int, list[float]] = {}
                for row in own:
                    if (found := value(row)) is not None:
                        points.setdefault(row["env_steps"], []).append(found)
                color, line, marker = styles[name]
                steps = sorted(points)
                panel.plot(
                    steps,
                    [np.mean(points[step]) for step in steps],
                    color=color,
                    linestyle=line,
                    marker=marker,
                    label=name,
                )
                if any(len(found) > 1 for found in points.values()):
                    ends = [(min(points[step]), max(points[step])) for step in steps]
                    panel.fill_between(steps, *np.transpose(ends), color=color, alpha=0.12)
            panel.set_ylabel(label)
            panel.set_xlabel("Environment steps")
            panel.xaxis.set_major_formatter(THOUSANDS)
        panels[1].set_yscale("symlog", linthresh=0.1)
        figure.suptitle(f"{title}: gradients at H = {rows[0]['horizon']}", x=0.01, ha="left")
        with_legend(figure, panels[1])
    return figure


def _relative_bias(row: Row) -> float | None:
    known = row["squared_bias"] is not None and row["reference_norm"] > 0.0
    return row["squared_bias"] / row["reference_norm"] ** 2 if known else None
