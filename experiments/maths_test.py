"""The maths test: what a plan cannot do and a policy can. `python -m experiments.maths_test`.

A test may be accepted or declined before its question is seen. A right answer pays 1000, a wrong
one costs 2000. A plan fixes its answer before it has seen the question, so it declines; replanning
does not help, because when the first decision is made every plan is still a fixed one. A policy
knows that it will see the question. Planners know the true system here; SAC learns from scratch.

Every learner is a run directory under `runs/maths_test/`. Raw rows go to
`experiments/results/maths_test.jsonl`, the figure beside it.
"""

import argparse
import dataclasses
import sys

from experiments import common
from mbpo_jax.files import Row
from mbpo_jax.presets import environment_preset

NAME = "maths_test"


def entries(num_seeds: int) -> list[common.Entry]:
    """Return the three ways to take the test."""
    base = dataclasses.replace(environment_preset(NAME), num_seeds=num_seeds)
    # Plans take long, so fewer of them are made for evaluation.
    planned = dataclasses.replace(
        base, algorithm="mpc", model="oracle", eval_every=500, eval_episodes=10
    )
    open_loop = dataclasses.replace(planned.planner, open_loop=True)
    configs = {
        "SAC": dataclasses.replace(base, algorithm="sac"),
        "MPC": planned,
        "open-loop plan": dataclasses.replace(planned, planner=open_loop),
    }
    return [common.Entry("maths test", label, config) for label, config in configs.items()]


def draw(rows: list[Row]) -> None:
    """Draw return against environment steps."""
    from experiments.comparison import comparison_curves

    comparison_curves(common.RESULTS / f"{NAME}.png", common.panels(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description="Plans and a policy on the maths test.")
    parser.add_argument("--num-seeds", type=int, default=6)
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    arguments = parser.parse_args()
    chosen = entries(arguments.num_seeds)
    return common.run(NAME, chosen, draw, draw_only=arguments.draw_only)


if __name__ == "__main__":
    sys.exit(main())
