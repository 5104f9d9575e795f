"""Where MBPO loses to SAC at equal updates, and what helps: `python -m experiments.equal_updates`.

With many updates a step SAC needs few steps on a small task, and MBPO's rows have to be better than
those in the replay buffer to gain anything. Two things are against them: rollouts are made after
each fit of the model, so that they are up to `steps_per_fit * utd_ratio` updates old; and the model
buffer holds the actions of one policy, which vary less than those of many. Remedies stand beside
the preset's numbers as they were before this experiment: more real rows in each batch, rollouts
made ten times a fit by the policy of then, kept for five epochs, or beginning with random actions,
and fits every 50 steps. On `pendulum` rollouts of the true system tell the model's errors from the
rest.

Runs of the same seed start from the same random steps, and are compared in pairs.

Every combination is a run directory under `runs/equal_updates/`, so the script can be stopped and
started again. Raw rows go to `experiments/results/equal_updates.jsonl`, the figure beside it.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments import common
from mbpo_jax.algorithms.branching import (
    FirstAction,
    branched_experience,
    random_action,
    stored_action,
)
from mbpo_jax.algorithms.mbpo import make_mbpo
from mbpo_jax.algorithms.parts import make_model
from mbpo_jax.config import Config
from mbpo_jax.files import Row, replacing
from mbpo_jax.presets import environment_preset
from mbpo_jax.reports import statistics
from mbpo_jax.reports.figures import BLACK, BLUE, THOUSANDS, figure_style, save_figure
from mbpo_jax.reports.plots import collect
from mbpo_jax.types import Algorithm, Env

NAME = "equal_updates"
MODULE = f"experiments.{NAME}"
"""Also where this is `__main__`."""
ENVIRONMENTS = {
    "pendulum": 2000,
    "cartpole": 4000,
    "reacher": 2000,
    "inverted_double_pendulum": 2000,
}
"""Environment steps of each."""
EVERYWHERE = {
    "MBPO": {},
    "MBPO, half real": {"real_ratio": 0.5},
    "MBPO, three quarters real": {"real_ratio": 0.75},
}
"""Rollouts of learners that are trained on all tasks."""
ON_PENDULUM = {
    "MBPO, 10 refreshes": {"refreshes_per_fit": 10},
    "MBPO, 10 refreshes, half real": {"refreshes_per_fit": 10, "real_ratio": 0.5},
    "MBPO, kept 5 epochs": {"retain_epochs": 5},
    "MBPO, 10 refreshes, kept 5 epochs": {"refreshes_per_fit": 10, "retain_epochs": 5},
}
"""Those of learners that are trained on `pendulum`, too."""
FIRST_ACTIONS = {
    "MBPO, stored first actions": ("with_stored_actions", 0.05),
    "MBPO, random first actions": ("with_random_actions", 0.05),
    "MBPO, random first actions, half real": ("with_random_actions", 0.5),
}
"""Those of learners whose rollouts begin with other actions than the policy's, and real rows."""
TRUE_SYSTEM = {
    "MBPO, true system": {},
    "MBPO, true system, 10 refreshes": {"refreshes_per_fit": 10},
    "MBPO, true system, half real": {"real_ratio": 0.5},
}


def with_stored_actions(env: Env, config: Config) -> Algorithm:
    """MBPO whose rollouts begin with the actions that were taken where they start."""
    return beginning_with(stored_action, env, config)


def with_random_actions(env: Env, config: Config) -> Algorithm:
    """MBPO whose rollouts begin with random actions."""
    return beginning_with(random_action, env, config)


def beginning_with(first_action: FirstAction, env: Env, config: Config) -> Algorithm:
    mbpo, model = make_mbpo(env, config), make_model(env, config)
    experience = branched_experience(env.spec, model, config, first_action=first_action)
    return mbpo._replace(experience=experience)


def learners(environment: str, num_seeds: int) -> Iterator[tuple[str, Config]]:
    """Yield label and configuration of the learners that are compared on an environment."""
    base = environment_preset(environment)
    base = dataclasses.replace(
        base,
        num_seeds=num_seeds,
        total_env_steps=ENVIRONMENTS[environment],
        stop_at_return=None,
        # What the presets had before this experiment.
        rollout=dataclasses.replace(
            base.rollout, real_ratio=0.05, refreshes_per_fit=1, retain_epochs=1
        ),
    )

    def with_rollouts(**changes: float) -> Config:
        return dataclasses.replace(base, rollout=dataclasses.replace(base.rollout, **changes))

    yield "SAC", dataclasses.replace(base, algorithm="sac")
    for label, changes in EVERYWHERE.items():
        yield label, with_rollouts(**changes)
    if environment == "pendulum":
        for label, changes in ON_PENDULUM.items():
            yield label, with_rollouts(**changes)
        yield "MBPO, fits every 50 steps", dataclasses.replace(base, steps_per_fit=50)
        for label, (algorithm, real_ratio) in FIRST_ACTIONS.items():
            changed = with_rollouts(real_ratio=real_ratio)
            yield label, dataclasses.replace(changed, algorithm=f"{MODULE}:{algorithm}")
        for label, changes in TRUE_SYSTEM.items():
            yield label, dataclasses.replace(with_rollouts(**changes), model="oracle")


def entries(environments: Sequence[str], num_seeds: int) -> list[common.Entry]:
    """Return all combinations."""
    return [
        common.Entry(environment, label, config)
        for environment in environments
        for label, config in learners(environment, num_seeds)
    ]


def gains(learners: Mapping[str, Sequence[Row]]) -> dict[str, np.ndarray]:
    """Return how far each learner but SAC is ahead of SAC over training, seed by seed, `[R]`."""
    sac = common.mean_returns(learners["SAC"])
    return {
        name: common.mean_returns(rows) - sac for name, rows in learners.items() if name != "SAC"
    }


def table(rows: Sequence[Row]) -> str:
    """Return returns over training, and their differences from SAC's at the same seeds."""
    names = ("task", "learner", "at the end", "over training", "less SAC's", "seeds ahead of SAC")
    lines = []
    for environment, learners in common.panels(rows).items():
        ahead = gains(learners)
        largest = max(np.abs(common.mean_returns(own)).max() for own in learners.values())
        decimals = 0 if largest >= 50 else 1
        for label, own in learners.items():
            last, means = collect(own, "return_mean").values[:, -1], common.mean_returns(own)
            numbers = (f"{values.mean():,.{decimals}f}" for values in (last, means))
            cells = [environment, label, *numbers, "", ""]
            if label in ahead:
                gain = ahead[label]
                middle, *ends = statistics.estimate(statistics.mean, [gain])
                low, high = (f"{end:,.{decimals}f}" for end in ends)
                cells[4] = f"{middle:,.{decimals}f} [{low}, {high}]"
                cells[5] = f"{(gain > 0).sum()} of {gain.size}"
            lines.append(cells)
    return common.markdown(names, lines)


def gains_figure(rows: Sequence[Row]) -> Figure:
    """Draw how far learners are ahead of SAC: each seed, their mean and its 95 % interval.

    A task on which SAC alone is trained yet has no panel.
    """
    panels_of_rows = common.panels(rows).items()
    found = {name: ahead for name, learners in panels_of_rows if (ahead := gains(learners))}
    heights = [len(ahead) for ahead in found.values()]
    with figure_style():
        figure = Figure(figsize=(6.5, 1.0 + 0.26 * sum(heights)), layout="constrained")
        panels = figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0]
        for panel, (environment, ahead) in zip(panels, found.items(), strict=True):
            panel.set_title(environment)
            panel.axvline(0.0, color=BLACK, linewidth=0.8)
            for place, gain in enumerate(ahead.values()):
                middle, low, high = statistics.estimate(statistics.mean, [gain])
                panel.plot(
                    gain, np.full(gain.size, place), "o", color=BLUE, markersize=3, alpha=0.4
                )
                panel.plot([low, high], [place, place], color=BLUE, linewidth=2)
                panel.plot(middle, place, "o", color=BLUE, markersize=6)
            panel.set_yticks(range(len(ahead)), list(ahead))
            panel.set_ylim(len(ahead) - 0.5, -0.5)
            panel.xaxis.set_major_formatter(THOUSANDS)
        panels[-1].set_xlabel("Return over training less that of SAC at the same seed")
    return figure


def report(rows: list[Row]) -> None:
    """Write the table, and draw it."""
    written = table(rows)
    print(written)
    with replacing(common.RESULTS / f"{NAME}.md") as file:
        file.write(f"{written}\n".encode())
    save_figure(common.RESULTS / f"{NAME}.png", gains_figure(rows))


def main() -> int:
    return common.command(
        NAME, "MBPO beside SAC with as many updates a step.", ENVIRONMENTS, entries, report
    )


if __name__ == "__main__":
    sys.exit(main())
