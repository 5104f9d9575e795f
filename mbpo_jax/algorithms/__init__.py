"""Algorithms: short assemblies of parts."""

from collections.abc import Callable

from mbpo_jax import config as _config
from mbpo_jax.algorithms.bptt import make_bptt
from mbpo_jax.algorithms.dyna import make_dyna
from mbpo_jax.algorithms.ilqr import make_ilqr
from mbpo_jax.algorithms.mba import make_mba
from mbpo_jax.algorithms.mbpo import make_mbpo
from mbpo_jax.algorithms.mpc import make_mpc
from mbpo_jax.algorithms.mve import make_mve
from mbpo_jax.algorithms.pg import make_pg
from mbpo_jax.algorithms.retrace import make_retrace
from mbpo_jax.algorithms.sac import make_sac_baseline
from mbpo_jax.algorithms.steve import make_steve
from mbpo_jax.algorithms.svg import make_svg
from mbpo_jax.algorithms.tabular import make_tabular
from mbpo_jax.config import DIFFERENTIATES_MODEL, Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Algorithm, Env

_config.register_pytrees()

MAKERS: dict[str, Callable[[Env, Config], Algorithm]] = {
    "sac": make_sac_baseline,
    "mbpo": make_mbpo,
    "dyna": make_dyna,
    "mba": make_mba,
    "mve": make_mve,
    "steve": make_steve,
    "svg": make_svg,
    "retrace": make_retrace,
    "pg": make_pg,
    "bptt": make_bptt,
    "mpc": make_mpc,
    "ilqr": make_ilqr,
    "dyna_q": make_tabular,
    "dyna_q_plus": make_tabular,
    "prioritized_sweeping": make_tabular,
}


def make_algorithm(env: Env, config: Config) -> Algorithm:
    """Assemble the algorithm that the configuration names, for an environment.

    Raises:
      ConfigError: they do not go together.
    """
    if env.spec.tabular and config.algorithm in DIFFERENTIATES_MODEL:
        raise ConfigError(
            f"algorithm: {config.algorithm} follows a gradient through the model, but the numbered "
            f"moves of {env.spec.name} have none; use another algorithm or environment"
        )
    if (
        config.model == "oracle"
        and config.algorithm in DIFFERENTIATES_MODEL
        and not env.differentiable
    ):
        raise ConfigError(
            f"model: {config.algorithm} follows a gradient through the model, but JAX has none of "
            f"{env.spec.name}; use model=learned, or another algorithm"
        )
    return MAKERS[config.algorithm](env, config)
