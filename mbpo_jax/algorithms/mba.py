"""Model-based acceleration (Gu et al. 2016, arXiv:1603.00748, algorithm 2).

Imagined rollouts that start from recent states feed an off-policy learner. There the model is a
local linear one and the learner NAF; here they are the ensemble and SAC.
"""

from mbpo_jax.agents.sac import make_sac
from mbpo_jax.algorithms.branching import branched_experience, recent_starts
from mbpo_jax.algorithms.parts import make_model
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, Env


def make_mba(env: Env, config: Config) -> Algorithm:
    """Assemble MBA: rollouts branched from the newest transitions, SAC."""
    model = make_model(env, config)
    starts = recent_starts(config.rollout.recent_steps)
    return Algorithm(
        agent=make_sac(env.spec, config.sac),
        experience=branched_experience(env.spec, model, config, starts=starts),
        model=model,
    )
