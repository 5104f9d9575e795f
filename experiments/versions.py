"""Versions 1.5 to 3.0 of model-based RL, and their relatives, on two swing-ups.

The numbers are those of lecture 12 of CS 285 (Levine, Berkeley).

`python -m experiments.versions` trains, on `pendulum` and `cartpole`:

  1.5  MPC with the cross-entropy method through the learned ensemble
  2.0  backpropagation through the learned model into the policy, over whole episodes, and over
       rollouts of 20 steps
  2.5  the likelihood-ratio policy gradient on whole episodes in the learned model
  3.0  MBPO; beside it MVE, STEVE and SVG, all with H = 3, and SAC with as many updates

and draws return against environment steps and wall-clock. The lecture predicts that version 2.0
is unstable at long horizons, and that 3.0 needs the fewest environment steps of those that learn
a policy. All learners have the same environment, model, networks, replay and loop.

Every combination is a run directory under `runs/versions/`, so the script can be stopped and
started again. Raw rows go to `experiments/results/versions.jsonl`, the figure beside it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator

from experiments import common
from mbpo_jax.config import Config
from mbpo_jax.files import Row
from mbpo_jax.presets import environment_preset

NAME = "versions"
ENVIRONMENTS = {"pendulum": 3000, "cartpole": 5000}
"""Environment steps of each."""


def base_config(environment: str, num_seeds: int) -> Config:
    """Return what all learners have in common.

    Patience is counted in epochs, which are a few gradient steps at this size of data: the
    reference's 5 would stop fits too early. The rates are three times the usual ones for the same
    reason, few steps.
    """
    base = common.as_published(environment_preset(environment))
    return dataclasses.replace(
        base,
        num_seeds=num_seeds,
        total_env_steps=ENVIRONMENTS[environment],
        sac=dataclasses.replace(base.sac, learning_rate=1e-3),
        ensemble=dataclasses.replace(base.ensemble, num_members=5, num_elites=4),
        fit=dataclasses.replace(base.fit, patience=20),
    )


def learners(base: Config) -> Iterator[tuple[str, Config]]:
    """Yield label and configuration of each learner."""
    yield "SAC", dataclasses.replace(base, algorithm="sac")
    yield "3.0 MBPO", dataclasses.replace(base, algorithm="mbpo")
    yield "MVE", dataclasses.replace(base, algorithm="mve")
    yield "STEVE", dataclasses.replace(base, algorithm="steve")
    yield "SVG", dataclasses.replace(base, algorithm="svg")
    searched = dataclasses.replace(base, algorithm="policy_search")
    yield "2.0 episodes", searched
    short = dataclasses.replace(base.policy_search, horizon=20)
    yield "2.0 20 steps", dataclasses.replace(searched, policy_search=short)
    scored = dataclasses.replace(base.policy_search, gradient="lr_gae")
    yield "2.5 episodes", dataclasses.replace(searched, policy_search=scored)
    # Plans take long: fewer are made for evaluation, by a search of a sixth of the usual size.
    planner = dataclasses.replace(
        base.planner, population=100, iterations=3, num_elites=10, num_particles=4
    )
    yield (
        "1.5 MPC",
        dataclasses.replace(
            base, algorithm="mpc", planner=planner, eval_every=500, eval_episodes=3
        ),
    )


def entries(environments: list[str], chosen: list[str], num_seeds: int) -> list[common.Entry]:
    """Return the combinations of these environments and learners; all learners if none is named."""
    return [
        common.Entry(environment, label, config)
        for environment in environments
        for label, config in learners(base_config(environment, num_seeds))
        if not chosen or label in chosen
    ]


def draw(rows: list[Row]) -> None:
    """Draw return against environment steps and wall-clock."""
    from experiments.comparison import comparison_curves

    comparison_curves(common.RESULTS / f"{NAME}.png", common.panels(rows), clock=True)


def main() -> int:
    names = [label for label, _ in learners(base_config("pendulum", 1))]
    parser = argparse.ArgumentParser(description="Model-based RL 1.5 to 3.0 on two swing-ups.")
    parser.add_argument("--environment", action="append", choices=list(ENVIRONMENTS))
    parser.add_argument("--learner", action="append", default=[], choices=names)
    parser.add_argument("--num-seeds", type=int, default=6)
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    arguments = parser.parse_args()
    environments = arguments.environment or list(ENVIRONMENTS)
    chosen = entries(environments, arguments.learner, arguments.num_seeds)
    return common.run(NAME, chosen, draw, draw_only=arguments.draw_only)


if __name__ == "__main__":
    sys.exit(main())
