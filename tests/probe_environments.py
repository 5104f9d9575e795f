"""Systems whose values, trajectories and errors are known, and that compile at once."""

import functools

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.config import (
    Config,
    DynaConfig,
    EnsembleConfig,
    EnvConfig,
    ExpansionConfig,
    FitConfig,
    ILQRConfig,
    PlannerConfig,
    PolicySearchConfig,
    RetraceConfig,
    RolloutConfig,
    SACConfig,
    TabularConfig,
)
from mbpo_jax.envs import probes
from mbpo_jax.envs.base import random_action, step_or_reset
from mbpo_jax.envs.system import make_system_env
from mbpo_jax.envs.termination import never
from mbpo_jax.models.ensemble import Ensemble, EnsembleParams, EnsembleState, make_ensemble
from mbpo_jax.models.learned import make_learned_model
from mbpo_jax.nets.normalizer import identity_scaler
from mbpo_jax.types import DynamicsModel, Env, EnvSpec, EnvState, TerminationFn, Transition

LINEAR_GAUSSIAN = "linear_gaussian"
LIMIT = 1.0
"""A linear-Gaussian episode terminates where the first component's magnitude exceeds this."""


def make_env(name: str, spec_sizes: tuple[int, int], episode_length: int, first, move) -> Env:
    """Build an environment from a draw of the first observation and a rule of motion.

    Args:
      name: of the environment.
      spec_sizes: `O` and `A`.
      episode_length: time limit in steps.
      first: `key -> observation [O]`.
      move: `(key, observation, action) -> (next_observation, reward, terminated)`.
    """
    spec = EnvSpec(name, *spec_sizes, episode_length, action_repeat=1, dt=0.1)

    def reset(key):
        return EnvState((), first(key), jnp.int32(0), jnp.bool_(False))

    def step(key, state, action):
        following, reward, terminated = move(key, state.observation, action)
        steps = state.steps + 1
        done = terminated | (steps >= episode_length)
        discount = 1.0 - terminated
        transition = Transition(state.observation, action, reward, discount, following)
        return EnvState((), following, steps, done), transition

    return Env(spec, reset, step)


RIGHT_ACTION = probes.RIGHT_ACTION
PROBE_EPISODE = 4
PROBES = {
    name.removeprefix("probe_"): make_system_env(name, system, PROBE_EPISODE)
    for name, system in probes.PROBES.items()
}


@functools.partial(jax.jit, static_argnums=(1, 2))
def probe_data(key: jax.Array, env: Env, num_steps: int) -> Transition:
    """Play random actions for `num_steps` steps, episode after episode."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        return step_or_reset(env, step_key, state, random_action(action_key, 1))

    reset_key, steps_key = jax.random.split(key)
    return jax.lax.scan(step, env.reset(reset_key), jax.random.split(steps_key, num_steps))[1]


DYNAMICS = jnp.array([[0.9, 0.2], [-0.1, 0.8]])
CONTROL = jnp.array([[0.7], [0.2]])
COST = jnp.array([-0.3, 0.1])


@functools.cache  # so that what is compiled of it serves several tests
def linear_gaussian(*, noise: float, episode_length: int) -> Env:
    """Build `x' = A x + B a + noise`, reward `1 + c x'`, terminating where `|x'_0| > LIMIT`."""

    def first(key):
        return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)

    def move(key, observation, action):
        following = DYNAMICS @ observation + CONTROL @ action
        following = following + noise * jax.random.normal(key, (2,))
        return following, 1.0 + COST @ following, beyond_limit(following)

    env = make_env(LINEAR_GAUSSIAN, (2, 1), episode_length, first, move)
    return env._replace(terminated=beyond_limit)


def beyond_limit(observation: jax.Array) -> jax.Array:
    """Tell the termination of `linear_gaussian`."""
    return jnp.abs(observation[..., 0]) > LIMIT


GLITCH = 5
"""The number on which `glitchy` fails."""
GLITCHES = [(field, value) for field in ("reward", "observation") for value in (jnp.nan, -jnp.inf)]


def glitchy(field: str, value: float, starts: tuple[float, ...] = (0.0,)) -> Env:
    """Count up from one of these numbers, for a reward of 1 a step, up to a limit of 7 steps.

    Where the count would get to `GLITCH`, the reward or the observation is not finite.
    """

    def first(key):
        return jax.random.choice(key, jnp.asarray(starts), (1,))

    def move(key, observation, action):
        del key, action
        count = observation[0] + 1.0
        bad = jnp.where(count == GLITCH, value, 0.0)
        reward = 1.0 + bad if field == "reward" else jnp.float32(1)
        following = count + bad if field == "observation" else count
        return following[None], reward, jnp.bool_(False)

    return make_env("glitchy", (1, 1), 7, first, move)


def tiny_config() -> Config:
    """Return a configuration whose steps on `linear_gaussian` take next to no time.

    From 10 environment steps on, an epoch and a fit are 8 steps, and k is 1, 2, 3, 3, ...
    """
    return Config(
        total_env_steps=42,
        random_steps=10,
        steps_per_fit=8,
        epoch_length=8,
        eval_every=8,
        eval_episodes=3,
        checkpoint_every=8,
        env=EnvConfig(name=LINEAR_GAUSSIAN),
        sac=SACConfig(utd_ratio=2, batch_size=8, hidden_sizes=(8,)),
        ensemble=EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=(8,)),
        fit=FitConfig(batch_size=4, weight_decays=(1e-4, 1e-4), max_epochs=2),
        rollout=RolloutConfig(
            rollouts_per_step=2,
            max_length=3,
            start_epoch=0,
            end_epoch=2,
            retain_epochs=2,
            real_ratio=0.5,
            diagnostic_length=2,
        ),
        dyna=DynaConfig(model_updates=2),
        expansion=ExpansionConfig(horizon=2),
        retrace=RetraceConfig(length=3),
        policy_search=PolicySearchConfig(horizon=3, num_rollouts=4, hidden_sizes=(8,)),
        planner=PlannerConfig(horizon=3, population=8, num_elites=3, iterations=2, num_particles=2),
        ilqr=ILQRConfig(horizon=3, iterations=2, replan_every=2),
        tabular=TabularConfig(planning_steps=2),
    )


def linear_settings(
    observation_size: int, num_members: int, num_elites: int
) -> tuple[EnvSpec, Config]:
    """Return sizes and configuration of an ensemble without hidden layers; actions are numbers."""
    spec = EnvSpec("linear", observation_size, 1, episode_length=10, action_repeat=1, dt=0.1)
    ensemble = EnsembleConfig(
        num_members=num_members, num_elites=num_elites, hidden_sizes=(), target="absolute"
    )
    return spec, Config(ensemble=ensemble, fit=FitConfig(weight_decays=(0.0,)))


def linear_model(weight, bias, std, elites=None, logit=None) -> tuple[Ensemble, EnsembleState]:
    """Set an ensemble's parameters by hand, for exact predictions `weight @ input + bias`.

    Args:
      weight: `[D, O + 1]`, the same for all members; the reward is the first row.
      bias: `[E, D]`, what members differ in.
      std: `[D]` or scalar, of all predictions; 0 is exact.
      elites: members in use; all if None.
      logit: `[E]`, of termination at any input; no learned head if None.
    """
    weight, bias = jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
    num_members, target_size = bias.shape
    elites = jnp.arange(num_members) if elites is None else jnp.asarray(elites)
    spec, config = linear_settings(target_size - 1, num_members, elites.size)
    ensemble = make_ensemble(
        spec, config.ensemble, optax.identity(), learned_termination=logit is not None
    )
    # The raw log-variance is so low that its bounds, which are equal, decide.
    outputs = [bias, jnp.full_like(bias, -1e9)]
    if logit is not None:
        outputs.append(jnp.asarray(logit, jnp.float32)[:, None])
    layer_bias = jnp.concatenate(outputs, axis=1)
    unused = layer_bias.shape[1] - target_size
    kernel = jnp.tile(jnp.pad(weight.T, ((0, 0), (0, unused)))[None], (num_members, 1, 1))
    # In float32, exp(-150) is 0.
    log_std = jnp.maximum(jnp.log(jnp.asarray(std, jnp.float32)), -150.0)
    bound = jnp.broadcast_to(2.0 * log_std, (target_size,))
    members = {"params": {"layer_0": {"kernel": kernel, "bias": layer_bias}}}
    state = EnsembleState(
        EnsembleParams(members, min_log_variance=bound, max_log_variance=bound),
        optimizer=(),
        input_scaler=identity_scaler(weight.shape[1]),
        target_scaler=identity_scaler(target_size),
        elites=elites,
    )
    return ensemble, state


def linear_dynamics(
    state: EnsembleState, known: TerminationFn | None = never
) -> tuple[DynamicsModel, EnsembleState]:
    """Make the learned model of a `linear_model`, and the view that its predictions need.

    Args:
      state: of the linear model.
      known: the termination rule; None for the learned head.
    """
    num_members = state.params.members["params"]["layer_0"]["bias"].shape[0]
    observation_size = state.params.min_log_variance.size - 1
    settings = linear_settings(observation_size, num_members, state.elites.size)
    model = make_learned_model(*settings, known)
    return model, model.ready(state)
