"""Model-based policy optimization (Janner et al. 2019, arXiv:1906.08253, algorithm 2).

SAC whose batches mix real transitions with those of short model rollouts branched from them.
"""

from mbpo_jax.agents.sac import make_sac
from mbpo_jax.algorithms.branching import branched_experience
from mbpo_jax.algorithms.parts import make_model
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, Env


def make_mbpo(env: Env, config: Config) -> Algorithm:
    """Assemble MBPO: rollouts branched anywhere in the replay buffer, SAC."""
    model = make_model(env, config)
    return Algorithm(
        agent=make_sac(env.spec, config.sac),
        experience=branched_experience(env.spec, model, config),
        model=model,
    )
