"""Everything at once that DHMBPO and truncation may switch on, in sizes of a test."""

import dataclasses

from mbpo_jax.config import Config


def with_all_switches(config: Config) -> Config:
    """Return a configuration of `dhmbpo` with all of it."""
    return dataclasses.replace(
        config,
        sac=dataclasses.replace(
            config.sac,
            num_critics=3,
            num_target_critics=2,
            policy_value="mean",
            critic_layer_norm=True,
            activation="swish",
            scale_observations=True,
            value_range="rewards",
            critic_updates=2,
            catches_up=True,
            target_entropy=None,
        ),
        ensemble=dataclasses.replace(
            config.ensemble, noise="homoscedastic", dropout=0.1, layer_norm=True
        ),
        fit=dataclasses.replace(config.fit, stopping="budget", num_steps=3, cold_factor=2),
        rollout=dataclasses.replace(config.rollout, refreshes_per_fit=2, truncation="threshold"),
    )
