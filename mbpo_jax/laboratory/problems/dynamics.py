"""What a run's policy acts in, as a problem has it: an ensemble, or the true system.

Nothing is paid after a termination, and the state stays where it was: what went on might leave all
bounds, and neither zero times infinity nor a gradient of zero that is passed back through an
infinite number is zero. A prediction that is not finite ends a trajectory, too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.config import Config, Propagation
from mbpo_jax.envs.termination import never, rule_of
from mbpo_jax.laboratory.problems.problem import Gaussian
from mbpo_jax.models.ensemble import EnsembleState, make_ensemble
from mbpo_jax.models.learned import mean_outcome
from mbpo_jax.nets.networks import for_all, num_members
from mbpo_jax.types import Env, EnvState, PyTree


class Imagined(NamedTuple):
    """A state of the learned system.

    Attributes:
      observation: `[O]`.
      alive: bool, whether no termination was predicted yet.
      paid: `[]`, the reward with which the state was entered.
      member: int32, the member that predicts the next step.
      noise: `[K]` uint32, what the next members are drawn by; () where one predicts all steps.
    """

    observation: jax.Array
    alive: jax.Array
    paid: jax.Array
    member: jax.Array
    noise: jax.Array | tuple[()] = ()


class Real(NamedTuple):
    """A state of the true system.

    Attributes:
      observation: `[O]`.
      alive: bool, whether the episode has not terminated yet.
      paid: `[]`, the reward with which the state was entered.
      simulator: of the environment.
      noise: `[K]` uint32, what makes the system's own noise, if it has any.
    """

    observation: jax.Array
    alive: jax.Array
    paid: jax.Array
    simulator: PyTree
    noise: jax.Array


class System(NamedTuple):
    """What a problem needs of a system; see `Problem` for what is not said here.

    Attributes:
      name: for messages.
      begin: `(key, observation [O], simulator) -> state`.
      mean_step: `(state, action) -> next state`, in the mean.
    """

    name: str
    begin: Callable[[jax.Array, jax.Array, PyTree], PyTree]
    advance: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    mean_step: Callable[[PyTree, jax.Array], PyTree]
    outcome: Callable[[PyTree, jax.Array], Gaussian] | None = None
    outcome_size: int = 0
    smooth: bool = True
    differentiable: bool = True
    moving: tuple[str, ...] = ()

    def parts(self) -> dict:
        """Return what a problem takes as it is, by the names of its fields."""
        own = ("name", "begin", "mean_step")
        return {"reward": paid_for} | {k: v for k, v in self._asdict().items() if k not in own}


def paid_for(state: PyTree, action: jax.Array, following: PyTree) -> jax.Array:
    """Return the reward `[]` of a step of either system."""
    del action
    return jnp.where(state.alive, following.paid, 0.0)


def make_learned_system(
    env: Env, config: Config, members: EnsembleState, propagation: Propagation = "trajectory"
) -> System:
    """Build the system that members of a run's ensemble predict.

    All of them are asked in every step, and one is followed, or their mean. Of a learned head of
    terminations the likelier of going on and terminating is taken.

    Args:
      env: tells sizes and terminations.
      config: of the run.
      members: those that are followed, each with equal probability.
      propagation: how a trajectory meets the members.
    """
    known = rule_of(env, config.env.termination)
    ensemble = make_ensemble(
        env.spec,
        config.ensemble,
        optax.adam(config.fit.learning_rate),
        learned_termination=known is None,
    )

    def law(state: Imagined, action: jax.Array) -> tuple[Gaussian, jax.Array | None]:
        """Return the law of reward and next observation `[1 + O]`, and whether it is the last."""
        if propagation == "mean":
            mean, ends = mean_outcome(ensemble, members, state.observation[None], action[None])
            return Gaussian(mean[0], jnp.zeros_like(mean[0])), None if ends is None else ends[0]
        inputs = [for_all(members.params.members, x[None]) for x in (state.observation, action)]
        asked = ensemble.predict(members, *inputs)
        mean, std, logit = jax.tree.map(lambda x: x[state.member, 0], asked)
        return Gaussian(mean, std), None if logit is None else logit > 0.0

    def entered(state: Imagined, action: jax.Array, sample: jax.Array) -> Imagined:
        ended = known(sample[1:]) if known is not None else law(state, action)[1]
        assert ended is not None
        finite = jnp.all(jnp.isfinite(sample))
        alive = state.alive & finite & ~ended
        member, noise = state.member, state.noise
        if propagation == "step":
            assert not isinstance(noise, tuple)
            key, next_key = jax.random.split(jax.random.wrap_key_data(noise))
            member = jax.random.randint(key, (), 0, num_members(members.params.members))
            noise = jax.random.key_data(next_key)
        return Imagined(
            jnp.where(alive, sample[1:], state.observation),
            alive,
            jnp.where(finite, sample[0], 0.0),
            member,
            noise,
        )

    def mean_step(state: Imagined, action: jax.Array) -> Imagined:
        return entered(state, action, law(state, action)[0].mean)

    def begin(key: jax.Array, observation: jax.Array, simulator: PyTree) -> Imagined:
        del simulator
        member_key, noise_key = jax.random.split(key)
        member = jax.random.randint(member_key, (), 0, num_members(members.params.members))
        noise = jax.random.key_data(noise_key) if propagation == "step" else ()
        paid = jnp.zeros((), observation.dtype)
        return Imagined(observation, jnp.bool_(True), paid, member, noise)

    system = System(
        "learned model",
        begin,
        advance=lambda state, action, outcome: mean_step(state, action),
        mean_step=mean_step,
        smooth=known is never,
        moving=("observation",),
    )
    if propagation == "mean":
        return system
    return system._replace(
        advance=entered,
        outcome=lambda state, action: law(state, action)[0],
        outcome_size=1 + env.spec.observation_size,
    )


def make_true_system(env: Env, propagation: Propagation = "trajectory") -> System:
    """Build the system of the real environment, which has no members, but may have a mean."""

    def entered(state: Real, after: EnvState, made, noise: jax.Array) -> Real:
        finite = jnp.all(jnp.isfinite(made.next_observation)) & jnp.isfinite(made.reward)
        alive = state.alive & finite & (made.discount > 0.0)
        observation, simulator = jax.tree.map(
            lambda new, old: jnp.where(alive, new, old),
            (made.next_observation, after.simulator),
            (state.observation, state.simulator),
        )
        return Real(observation, alive, jnp.where(finite, made.reward, 0.0), simulator, noise)

    def before(state: Real) -> EnvState:
        return EnvState(state.simulator, state.observation, jnp.int32(0), jnp.bool_(False))

    def advance(state: Real, action: jax.Array, outcome: jax.Array) -> Real:
        del outcome
        key, next_key = jax.random.split(jax.random.wrap_key_data(state.noise))
        made = env.step(key, before(state), action)
        return entered(state, *made, jax.random.key_data(next_key))

    def mean_step(state: Real, action: jax.Array) -> Real:
        if env.mean_step is None:
            return advance(state, action, jnp.zeros(0))
        return entered(state, *env.mean_step(before(state), action), state.noise)

    def begin(key: jax.Array, observation: jax.Array, simulator: PyTree) -> Real:
        noise, paid = jax.random.key_data(key), jnp.zeros((), observation.dtype)
        return Real(observation, jnp.bool_(True), paid, simulator, noise)

    return System(
        "true system",
        begin,
        advance=(lambda s, a, outcome: mean_step(s, a)) if propagation == "mean" else advance,
        mean_step=mean_step,
        smooth=env.terminated is never,
        differentiable=env.differentiable,
        # A state holds the observation beside the simulator it was made from, so no part tells.
        moving=(),
    )
