"""What a run will take, told before it starts."""

import dataclasses

import pytest

from mbpo_jax.config import DynaConfig
from mbpo_jax.training import plan
from mbpo_jax.training.group import group_of
from mbpo_jax.training.layout import set_up
from tests.probe_environments import linear_gaussian, tiny_config


def test_chunks_make_all_steps_after_the_random_ones():
    config = tiny_config()
    assert config.num_chunks == 4
    assert config.random_steps + 4 * config.steps_per_fit == config.total_env_steps


@pytest.mark.parametrize(
    ("algorithm", "updates"), [("sac", 2), ("mbpo", 2), ("mba", 2), ("dyna", 2 + 5)]
)
def test_updates_of_a_chunk_are_those_of_its_steps(algorithm, updates):
    config = dataclasses.replace(
        tiny_config(),
        algorithm=algorithm,
        model="learned" if algorithm == "sac" else "oracle",
        dyna=DynaConfig(model_updates=5),
    )
    setup = set_up(group_of(config), linear_gaussian(noise=0.0, episode_length=5))
    assert plan.planned_updates(setup) == (0, 8 * updates, 0)
