"""SAC alone: the model-free baseline, at any ratio of updates to environment steps."""

import jax

from mbpo_jax import replay
from mbpo_jax.agents.sac import make_sac
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, EnvSpec, Experience, Transition


def replay_experience() -> Experience:
    """Feed updates from the replay buffer alone."""

    def sample(key, state, real, shape) -> Transition:
        del state
        # Split as in `mbpo.mixed_batch`, so that a real ratio of 1 is SAC, number for number.
        real_key, _ = jax.random.split(key)
        return replay.sample(real_key, real, shape)

    return Experience(
        init=lambda key: (),
        refresh=lambda key, state, real, policy, env_steps: (state, {}),
        sample=sample,
        diagnose=lambda state, real: {},
    )


def make_sac_baseline(spec: EnvSpec, config: Config) -> Algorithm:
    """Assemble soft actor-critic on replay."""
    return Algorithm(replay_experience(), make_sac(spec, config.sac))
