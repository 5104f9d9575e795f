"""How gradient estimators did while a run trained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.figures import by_estimator, estimator_styles, with_legend
from mbpo_jax.reports.figures import THOUSANDS, figure_style


def tracking_figure(rows: Sequence[Row], title: str) -> Figure:
    """Draw signal-to-noise ratio and bias of estimates over training.

    Of one run with the 95 % intervals of the estimates; of several their mean, and a band from the
    least to the largest.

    Args:
      rows: of `training.tracking`. A bias is against the gradient in the true system, so it holds
        the model's.
      title: heading.
    """
    drawn = {
        "Signal-to-noise ratio of an estimate": _snr,
        "Squared bias over the squared norm\nof the true gradient": _relative_bias,
    }
    alone = len({row["run"] for row in rows}) == 1
    styles = estimator_styles(rows)
    with figure_style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, (label, value) in zip(panels, drawn.items(), strict=True):
            for name, own in by_estimator(rows).items():
                points: dict[int, list[Point]] = {}
                for row in own:
                    if (found := value(row)) is not None:
                        points.setdefault(row["env_steps"], []).append(found)
                if not points:
                    continue
                color, line, marker = styles[name]
                steps = sorted(points)
                middle = [np.mean([value for value, _, _ in points[step]]) for step in steps]
                low = [min(p[1] if alone else p[0] for p in points[step]) for step in steps]
                high = [max(p[2] if alone else p[0] for p in points[step]) for step in steps]
                panel.plot(steps, middle, color=color, linestyle=line, marker=marker, label=name)
                panel.fill_between(steps, low, high, color=color, alpha=0.12)
            panel.set_ylabel(label)
            panel.set_xlabel("Environment steps")
            panel.xaxis.set_major_formatter(THOUSANDS)
        panels[0].set_yscale("log", nonpositive="clip")
        panels[1].set_yscale("symlog", linthresh=0.1)
        figure.suptitle(f"{title}: gradients at H = {rows[0]['horizon']}", x=0.01, ha="left")
        with_legend(figure, panels[1])
    return figure


Point = tuple[float, float, float]
"""A number and the ends of its interval; the number itself where there is none."""


def _snr(row: Row) -> Point | None:
    return None if row["snr"] is None else (row["snr"], *_ends(row, "snr"))


def _relative_bias(row: Row) -> Point | None:
    if row["squared_bias"] is None or not row["reference_norm"]:
        return None
    square = row["reference_norm"] ** 2
    low, high = _ends(row, "squared_bias")
    return row["squared_bias"] / square, low / square, high / square


def _ends(row: Row, name: str) -> tuple[float, float]:
    return tuple(row[f"{name}_interval"] or (row[name], row[name]))
