"""Algorithms: short assemblies of parts."""

from mbpo_jax import config as _config
from mbpo_jax.config import Config, algorithm_record
from mbpo_jax.errors import ConfigError
from mbpo_jax.import_paths import load_function
from mbpo_jax.types import Algorithm, Env

_config.register_pytrees()


def make_algorithm(env: Env, config: Config) -> Algorithm:
    """Assemble the algorithm that the configuration names, for an environment.

    Raises:
      ConfigError: they do not go together, or one of one's own cannot be loaded or is none.
    """
    record = algorithm_record(config.algorithm)
    if env.spec.tabular and config.differentiates_model:
        raise ConfigError(
            f"algorithm: {config.algorithm} follows a gradient through the model, but the numbered "
            f"moves of {env.spec.name} have none; use another algorithm or environment"
        )
    if config.model == "oracle" and config.differentiates_model and not env.differentiable:
        raise ConfigError(
            f"model: {config.algorithm} follows a gradient through the model, but JAX has none of "
            f"{env.spec.name}; use model=learned, or another algorithm"
        )
    algorithm = load_function(record.maker, "algorithm", "env", "config")(env, config)
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"algorithm: {config.algorithm} returned {type(algorithm).__name__} where an "
            "mbpo_jax.types.Algorithm is needed"
        )
    return algorithm
