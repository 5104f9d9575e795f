"""Does value expansion gain less and less with the horizon, even through the true system?

`python -m experiments.value_expansion` trains SAC on two swing-ups whose critics regress to values
expanded by H model steps (MVE, on real rows alone) or whose policy is improved through H model
steps (SVG), through the learned ensemble and through the true system (`model: oracle`), beside
Retrace on replay sequences of H + 1 transitions: the control that needs no model. It draws, against
H, the evaluation return averaged over training, with bootstrap intervals over seeds.

Palenicek et al. (ICLR 2023) report that the gain shrinks with H and that the true system gains
hardly more than a learned one.

Every combination is a run directory under `runs/value_expansion/`, so the script can be stopped and
started again. Raw rows go to `experiments/results/value_expansion.jsonl`, the figure beside it.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from experiments import common
from mbpo_jax.config import Config
from mbpo_jax.files import Row
from mbpo_jax.presets import environment_preset

NAME = "value_expansion"
ENVIRONMENTS = {"pendulum": 2000, "cartpole": 3000}
"""Environment steps of each."""
HORIZONS = (0, 1, 3, 5, 10, 20)
WHERE = {"critic": "mve", "actor": "svg"}
RESAMPLES = 10_000


def base_config(environment: str, num_seeds: int) -> Config:
    """Return what all learners have in common: what `experiments.versions` has, but fewer updates.

    With many updates per step SAC alone makes nearly all of the replay buffer, and little is left
    to gain.
    """
    base = environment_preset(environment)
    return dataclasses.replace(
        base,
        num_seeds=num_seeds,
        total_env_steps=ENVIRONMENTS[environment],
        sac=dataclasses.replace(base.sac, utd_ratio=2, learning_rate=1e-3),
        ensemble=dataclasses.replace(base.ensemble, num_members=5, num_elites=4),
    )


def learners(base: Config) -> Iterator[tuple[str, Config]]:
    """Yield label and configuration of each combination; H = 0 is SAC in all of them."""
    yield "SAC", dataclasses.replace(base, algorithm="sac")
    for horizon in HORIZONS[1:]:
        retrace = dataclasses.replace(base.retrace, length=horizon + 1)
        yield (
            f"Retrace, H={horizon}",
            dataclasses.replace(base, algorithm="retrace", retrace=retrace),
        )
        expansion = dataclasses.replace(base.expansion, horizon=horizon, td_k=False)
        for where, algorithm in WHERE.items():
            for model in ("learned", "oracle"):
                yield (
                    f"{where}, {model}, H={horizon}",
                    dataclasses.replace(
                        base, algorithm=algorithm, model=model, expansion=expansion
                    ),
                )


def entries(environments: Sequence[str], num_seeds: int) -> list[common.Entry]:
    """Return all combinations."""
    return [
        common.Entry(environment, label, config)
        for environment in environments
        for label, config in learners(base_config(environment, num_seeds))
    ]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95 % percentile-bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, dict[int, tuple[float, float, float]]]]:
    """Return mean and interval by environment, curve and horizon."""
    summary: dict[str, dict[str, dict[int, tuple[float, float, float]]]] = {}
    for environment, by_label in common.panels(rows).items():
        start = interval(common.mean_returns(by_label["SAC"]))
        curves = summary.setdefault(environment, {})
        for label, found in by_label.items():
            match = re.fullmatch(r"(.+), H=(\d+)", label)
            if match:
                curve = curves.setdefault(match[1], {0: start})
                curve[int(match[2])] = interval(common.mean_returns(found))
    return summary


def report(rows: Sequence[Row]) -> None:
    """Print the table, and draw it."""
    from experiments.comparison import interval_curves

    summary = summarize(rows)
    for environment, curves in summary.items():
        print(environment)
        for label, points in curves.items():
            cells = (f"{m:8.1f} [{a:.1f}, {b:.1f}]" for m, a, b in points.values())
            print(f"  {label:<16}", *cells)
    interval_curves(
        common.RESULTS / f"{NAME}.png",
        summary,
        "Expansion horizon H (model steps)",
        "Evaluation return, averaged over training\n(mean and 95 % interval over seeds)",
    )


def main() -> int:
    return common.command(
        NAME, "Value expansion against its horizon.", ENVIRONMENTS, entries, report
    )


if __name__ == "__main__":
    sys.exit(main())
