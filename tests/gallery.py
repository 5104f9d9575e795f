"""One of each figure that a command writes, drawn from made-up rows, for tests of all of them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import comparison
from mbpo_jax.files import Row
from mbpo_jax.laboratory.report import details, figures, over_training
from mbpo_jax.reports import episode, model_error, plots
from mbpo_jax.sweeps.report.figures import report_figures
from mbpo_jax.sweeps.report.summary import variants_of
from mbpo_jax.types import EnvSpec, Transition

STEPS = (0, 12_345, 250_000, 500_000, 1_000_000)
ESTIMATORS = (
    *("rp", "lr", "lr_total", "lr_loo", "lr_value", "mvd", "es", "fd", "q", "svg", "svg_tiled"),
    *("mix", "aobg", "ddcg", "tp", "ivw_step", "ivw_trajectory"),
)


def evaluations(runs: int, level: float = 1000.0) -> list[Row]:
    return [
        {
            **{"env_steps": step, "run": run, "seed": run, "return_std": 0.2 * level},
            **{"return_mean": level * step / STEPS[-1] + 10.0 * run, "wall_seconds": step / 7 + 1},
        }
        for run in range(runs)
        for step in STEPS
    ]


def metrics(runs: int) -> list[Row]:
    errors = {f"model/k_step_error_{k}": 0.01 * k**1.5 for k in (1, 2, 5, 10, 20)}
    return [
        {
            **{"env_steps": step, "run": run, "seed": run, "rollout/kept": 0.9},
            **{"rollout/length_mean": 1.0 + 14.0 * step / STEPS[-1]},
            **{name: value * (1.0 + 1e5 / (1 + step)) for name, value in errors.items()},
        }
        for run in range(runs)
        for step in STEPS[1:]
    ]


def study(horizons: tuple[int, ...], batch_sizes: tuple[int, ...] = (16,)) -> list[Row]:
    """Return rows of a study; the pathwise estimator's variance could not be told at the end."""
    rows = []
    for place, name in enumerate(ESTIMATORS):
        for horizon in horizons:
            for size in batch_sizes:
                known = name != "rp" or horizon < horizons[-1] or len(horizons) == 1
                known = known and name != "fd"
                v = 10.0 ** (0.3 * place - 2) * horizon / size
                row = {
                    **{"problem": "inverted_pendulum, learned model", "estimator": name},
                    **{"horizon": horizon, "batch_size": size, "reference_norm": 2.0},
                    **{"true_squared_norm": 4.0, "overflowed": False, "flops": 1e6 * (place + 1)},
                    "variance": v if known else None,
                    "variance_interval": [0.8 * v, 1.3 * v] if known else None,
                    "mean_squared_error": 1.1 * v if known else None,
                    "mean_squared_error_interval": [0.8 * v, 1.5 * v] if known else None,
                    **{"cosine": 0.5, "cosine_5": 0.2, "cosine_50": 0.5, "cosine_95": 0.8},
                    "isotropic_cosine": 1.0 / np.sqrt(1.0 + v),
                    "split_total": 1.2 * v if known else None,
                    **{"split_total_error": 0.1 * v, "split_variance": v},
                    **{"split_model_bias": 0.1 * v, "split_estimator_bias": 0.1 * v},
                }
                rows.append(row)
    return rows


def sources() -> list[Row]:
    shares = {"start": 0.3, "member": 0.2, "action": 0.6, "outcome": -0.1, "interaction": 0.0}
    return [
        {
            **{"problem": "pendulum", "estimator": name, "source": source, "total": 2.0},
            **{"variance": 2.0 * share, "variance_error": 0.04},
        }
        for name in ESTIMATORS
        for source, share in shares.items()
    ]


def tracked(steps: tuple[int, ...], runs: int) -> list[Row]:
    return [
        {
            **{"env_steps": step, "run": run, "seed": run, "estimator": name, "horizon": 5},
            **{"snr": 0.1 * (place + 1), "snr_interval": [0.05 * (place + 1), 0.2 * (place + 1)]},
            **{"squared_bias": 0.3 * place, "squared_bias_interval": [0.0, 0.6 * place]},
            "reference_norm": 1.5,
        }
        for run in range(runs)
        for step in steps
        for place, name in enumerate(ESTIMATORS)
    ]


def sweep(rates: int) -> Mapping[str, Figure]:
    """Draw a sweep of three algorithms, of which each has some learning rates, on two tasks."""
    rows: list[Row] = []
    found: list[Row] = []
    for task in ("halfcheetah", "gym/InvertedDoublePendulum-v5"):
        for place, algorithm in enumerate(("sac", "mbpo", "dhmbpo")):
            for rate in range(rates):
                for seed in range(4):
                    name = f"{task}-{algorithm}-{rate}-{seed}"
                    level = 1000.0 * (1 + place) * (1 + rate) + 50.0 * seed
                    run = {"id": name, "environment": task, "algorithm": algorithm, "seed": seed}
                    run |= {"sac.learning_rate": 10.0 ** (-4 - rate), "final_return": level}
                    run |= {"mean_return": 0.5 * level, "state": "finished", "trained": True}
                    rows.append(run | {"env_steps": STEPS[-1], "diverged": False})
                    found += [{"id": name} | row for row in evaluations(1, level)]
    return report_figures(variants_of(rows), found)


def played(observations: int) -> Figure:
    """Draw an episode of two actions."""
    times = np.arange(201.0)
    observation = np.stack([np.sin(0.1 * times + i) for i in range(observations)], axis=-1)
    action = np.stack([np.cos(times), np.sin(times)], axis=-1)[:-1]
    nothing = np.zeros(200, np.float32)
    spec = EnvSpec("pendulum", observations, 2, 200, 1, 0.05)
    episode_of = Transition(
        observation[:-1], action, -(times[:-1] ** 2), nothing, observation[1:], nothing
    )
    return episode.episode_figure(spec, episode_of, "SAC on pendulum: return -1,234.5")


def _curves(names: int) -> Figure:
    rows = {f"algorithm {i}": evaluations(3, 100.0 * i) for i in range(names)}
    panels = {"halfcheetah": rows, "hopper": rows, "humanoid": rows}
    return comparison.comparison_figure(panels, "title", clock=True)


def _intervals() -> Figure:
    points = {h: (1e3 * h, 9e2 * h, 1.2e3 * h) for h in (0, 1, 5)}
    return comparison.interval_figure(
        {task: {f"expansion, variant {i}": points for i in range(7)} for task in ("hopper", "ant")},
        "Horizon H (steps)",
        "Return",
    )


def _stability(most: int = 5, exponent: float = 0.9) -> Figure:
    names = ("largest", "smallest", "moment_exponent", "mean_exponent")
    ends = ("largest_quantiles", "smallest_quantiles")
    rows = [
        {"problem": "lq", "horizon": h, **dict.fromkeys(names[:2], 0.9)}
        | dict.fromkeys(names[2:], exponent)
        | {key: [0.8, 1.0] for key in ends}
        | {f"{key}_interval": [exponent - 0.1, exponent + 0.1] for key in names[2:]}
        for h in range(1, most + 1)
    ]
    return details.stability_figure(rows)


def _weights() -> Figure:
    return details.weight_figure(
        [
            {"estimator": name, "step": t, "weight": 0.1 * i, "weight_5": 0.0, "weight_95": 0.9}
            for i, name in enumerate(ESTIMATORS[-6:])
            for t in range(5)
        ]
    )


def _slices() -> Figure:
    problems = ("inverted_pendulum, learned model", "inverted_pendulum, true system")
    points = ((-0.1, 1.0), (0.0, 2.0), (0.1, 2.5))
    return details.slice_figure(
        [
            {"problem": name, "distance": x, "return": 1e3 * y, "return_error": 30.0, "horizon": 9}
            for name in problems
            for x, y in points
        ]
    )


def _steps(names: Sequence[str] = ESTIMATORS) -> Figure:
    return details.step_figure(
        [
            {"estimator": name, "step": t, "squared_mean": 10.0**-t, "variance": 10.0**t}
            for name in names
            for t in range(5)
        ]
    )


def _sweep_figure(rates: int, name: str) -> Callable[[], Figure]:
    return lambda: sweep(rates)[name]


GALLERY: dict[str, Callable[[], Figure]] = {
    "curve of a run": lambda: plots.learning_curve_figure(
        evaluations(1, -12345.6), [], "SAC on pendulum (analytic)", -150.0
    ),
    "curve of runs": lambda: plots.learning_curve_figure(
        evaluations(5), metrics(5), "MBPO on halfcheetah (spring)", 9e2
    ),
    "model error": lambda: model_error.model_error_figure(metrics(5), "MBPO on halfcheetah"),
    "model error of one step": lambda: model_error.model_error_figure(
        [
            {k: v for k, v in r.items() if not k.startswith("model/") or k.endswith("_1")}
            for r in metrics(2)
        ],
        "MBPO on halfcheetah",
    ),
    "tracking": lambda: over_training.tracking_figure(tracked(STEPS[1:], 3), "SVG on pendulum"),
    "tracking at one moment": lambda: over_training.tracking_figure(tracked((500,), 1), "SVG"),
    "episode": lambda: played(4),
    "comparison of three": lambda: _curves(3),
    "comparison of nine": lambda: _curves(9),
    "intervals": _intervals,
    "variance": lambda: figures.variance_figure(
        study((1, 2, 5, 10, 20)), [{"horizon": h, "log10_second_moment": h} for h in (1, 5, 20)]
    ),
    "variance at one horizon": lambda: figures.variance_figure(study((5,))),
    "cosine": lambda: figures.cosine_figure(study((5,), (1, 10, 100))),
    "efficiency": lambda: figures.efficiency_figure(study((5,))),
    "split": lambda: figures.split_figure(study((1, 5, 20))),
    "split at one horizon": lambda: figures.split_figure(study((5,))),
    "steps": _steps,
    "steps of two": lambda: _steps(ESTIMATORS[:2]),
    "sources": lambda: details.source_figure(sources()),
    "stability": _stability,
    "stability at one step": lambda: _stability(1),
    "a loop that forgets": lambda: _stability(5, -np.inf),
    "weights": _weights,
    "slices": _slices,
    **{
        f"sweep {rates} {name}": _sweep_figure(rates, name)
        for rates in (1, 4)
        for name in ("curves-halfcheetah", "variants-halfcheetah", "aggregates-final_return")
    },
    "sweep profiles": _sweep_figure(2, "profiles-mean_return"),
    "sweep sensitivity": _sweep_figure(4, "sensitivity-sac.learning_rate"),
}
