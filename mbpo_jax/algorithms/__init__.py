"""Algorithms: short assemblies of parts."""

from mbpo_jax import config as _config
from mbpo_jax.algorithms.mbpo import make_mbpo
from mbpo_jax.algorithms.sac import make_sac_baseline
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, EnvSpec

_config.register_pytrees()

MAKERS = {"mbpo": make_mbpo, "sac": make_sac_baseline}


def make_algorithm(spec: EnvSpec, config: Config) -> Algorithm:
    """Assemble the algorithm that the configuration names, for an environment's sizes."""
    return MAKERS[config.algorithm](spec, config)
