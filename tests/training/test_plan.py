"""What a run will take, told before it starts."""

import dataclasses

import pytest

from mbpo_jax.config import DynaConfig
from mbpo_jax.training import plan
from tests.probe_environments import linear_gaussian, tiny_config


@pytest.mark.parametrize(("random_steps", "expected"), [(0, 5), (7, 5), (8, 4), (10, 4), (39, 1)])
def test_chunks_cover_all_steps_after_the_random_ones(random_steps, expected):
    """Of 40 steps in chunks of 8; the last chunk may overshoot."""
    config = dataclasses.replace(tiny_config(), algorithm="sac", random_steps=random_steps)
    assert plan.num_chunks(config) == expected


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
    env = linear_gaussian(noise=0.0, episode_length=5)
    assert plan.updates_per_chunk(config, env) == 8 * updates
