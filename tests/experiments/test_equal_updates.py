"""MBPO beside SAC at equal updates: what is compared, tabulated and drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import equal_updates
from mbpo_jax.envs import make_env
from mbpo_jax.files import Row
from mbpo_jax.training.loop import make_program


def rows_of(learner: str, *returns: tuple[float, ...]) -> list[Row]:
    """Return the evaluations of runs of seeds 0, 1, ..., each with its returns."""
    return [
        {"environment": "pendulum", "learner": learner, "env_steps": 250 * (step + 1), "run": seed}
        | {"seed": seed, "return_mean": value}
        for seed, values in enumerate(returns)
        for step, value in enumerate(values)
    ]


ROWS = [
    *rows_of("SAC", (0.0, 2.0), (4.0, 6.0), (8.0, 8.0)),
    *rows_of("MBPO", (1.0, 3.0), (0.0, 4.0), (10.0, 8.0)),
]


def test_seeds_are_compared_in_pairs():
    gains = equal_updates.gains({"SAC": ROWS[:6], "MBPO": ROWS[6:]})
    assert list(gains) == ["MBPO"]
    np.testing.assert_allclose(gains["MBPO"], [1.0, -3.0, 1.0])
    sac, mbpo = equal_updates.table(ROWS).splitlines()[2:]
    assert sac == "| pendulum | SAC | 5.3 | 4.7 |  |  |"
    assert mbpo.startswith("| pendulum | MBPO | 5.0 | 4.3 | -0.3 [")
    assert mbpo.endswith("| 2 of 3 |")


def test_a_task_on_which_sac_alone_is_trained_is_tabulated_but_not_drawn():
    alone = [row | {"environment": "reacher"} for row in ROWS if row["learner"] == "SAC"]
    (panel,) = equal_updates.gains_figure([*ROWS, *alone]).axes
    assert panel.get_title(loc="left") == "pendulum"
    assert equal_updates.table([*ROWS, *alone]).splitlines()[-1].startswith("| reacher | SAC |")


def test_the_figure_has_a_line_for_each_learner_but_sac():
    (panel,) = equal_updates.gains_figure(ROWS).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["MBPO"]
    seeds = [line for line in panel.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(seeds[0].get_xdata(), [1.0, -3.0, 1.0])


def test_learners_differ_in_what_their_names_say():
    configs = dict(equal_updates.learners("pendulum", 6))
    assert configs["MBPO"].rollout.real_ratio == 0.05
    assert configs["MBPO, half real"].rollout.real_ratio == 0.5
    assert configs["MBPO, fits every 50 steps"].steps_per_fit == 50
    assert configs["MBPO, true system"].model == "oracle"
    updates = {(c.sac.utd_ratio, c.random_steps, c.num_seeds) for c in configs.values()}
    assert updates == {(10, 500, 6)}


def test_rollouts_of_ones_own_begin_with_other_actions(key):
    config = dict(equal_updates.learners("pendulum", 1))["MBPO, random first actions"]
    program = make_program(make_env(config.env))
    state = jax.eval_shape(lambda: program.init(config, key))
    after, _ = jax.eval_shape(lambda s: program.step(config, jnp.int32(500), s), state)
    assert after.experience.data.action.shape == state.experience.data.action.shape
