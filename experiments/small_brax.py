"""MBPO beside SAC on three small Brax tasks: `python -m experiments.small_brax`.

Compares evaluation return against environment steps of MBPO (updates per step as in its preset),
SAC with as many updates per step, and SAC with one. The claim behind it is Janner et al. 2019
(arXiv:1906.08253, figure 2): MBPO needs several times fewer environment steps than SAC.

A fit of the model stops once no member improved for some epochs, and with the few transitions of
these tasks an epoch is 2 to 8 gradient steps. Two remedies stand beside the reference's numbers.
On `inverted_double_pendulum`, where Brax takes 10 from the reward in the step that ends an episode,
so that most of the squared error that decides when a fit stops is in that jump: targets scaled to
unit variance. On `reacher`: ten times the patience.

Every combination is a run directory under `runs/small_brax/`, so the script can be stopped and
started again. Raw rows go to `experiments/results/small_brax.jsonl`, the figure beside it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments import common
from mbpo_jax.config import Config
from mbpo_jax.files import Row
from mbpo_jax.presets import environment_preset

ENVIRONMENTS = ("inverted_pendulum", "inverted_double_pendulum", "reacher")
NAME = "small_brax"


class Budget(NamedTuple):
    """How much the learners get.

    Attributes:
      num_seeds: runs of each learner.
      steps: environment steps of SAC with one update a step.
      many_update_steps: environment steps of the learners with many updates a step, whose steps
        take many times longer.
    """

    num_seeds: int
    steps: int
    many_update_steps: int


def variants(environment: str, budget: Budget) -> Iterator[tuple[str, Config]]:
    """Yield label and configuration of the learners that are compared on an environment."""
    base = common.as_published(environment_preset(environment))
    base = dataclasses.replace(
        base,
        num_seeds=budget.num_seeds,
        stop_at_return=None,
        checkpoint_every=500,
        # The reference's, which the presets had before this experiment and `equal_updates`.
        ensemble=dataclasses.replace(base.ensemble, normalize_targets=False),
        fit=dataclasses.replace(base.fit, patience=5),
    )
    many = dataclasses.replace(base, total_env_steps=budget.many_update_steps)
    yield "MBPO", many
    if environment == "inverted_double_pendulum":
        ensemble = dataclasses.replace(base.ensemble, normalize_targets=True)
        yield "MBPO, scaled targets", dataclasses.replace(many, ensemble=ensemble)
    if environment == "reacher":
        fit = dataclasses.replace(base.fit, patience=50)
        yield "MBPO, longer fits", dataclasses.replace(many, fit=fit)
    yield "SAC, as many updates", dataclasses.replace(many, algorithm="sac")
    sac = dataclasses.replace(base.sac, utd_ratio=1)
    one = dataclasses.replace(base, algorithm="sac", sac=sac, total_env_steps=budget.steps)
    yield "SAC, 1 update", one


def entries(environments: Sequence[str], budget: Budget) -> list[common.Entry]:
    """Return all combinations."""
    return [
        common.Entry(environment, label, config)
        for environment in environments
        for label, config in variants(environment, budget)
    ]


def draw(rows: list[Row]) -> None:
    """Draw return against environment steps, a panel for each environment."""
    from experiments.comparison import comparison_curves

    comparison_curves(common.RESULTS / f"{NAME}.png", common.panels(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description="MBPO beside SAC on three small Brax tasks.")
    parser.add_argument("--environment", action="append", choices=ENVIRONMENTS)
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument(
        "--steps",
        type=int,
        default=10_000,
        help="environment steps of SAC with one update a step",
    )
    parser.add_argument(
        "--many-update-steps",
        type=int,
        default=5000,
        help="environment steps of MBPO, and of SAC with as many updates a step",
    )
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    arguments = parser.parse_args()
    environments: list[str] = arguments.environment or list(ENVIRONMENTS)
    budget = Budget(arguments.num_seeds, arguments.steps, arguments.many_update_steps)
    chosen = entries(environments, budget)
    return common.run(NAME, chosen, draw, draw_only=arguments.draw_only)


if __name__ == "__main__":
    sys.exit(main())
