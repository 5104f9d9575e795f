"""SAC alone: the model-free baseline, at any ratio of updates to environment steps."""

from mbpo_jax.agents.sac import make_sac
from mbpo_jax.algorithms.parts import replay_experience
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, Env


def make_sac_baseline(env: Env, config: Config) -> Algorithm:
    """Assemble soft actor-critic (Haarnoja et al. 2018) on replay."""
    return Algorithm(make_sac(env.spec, config.sac), replay_experience())
