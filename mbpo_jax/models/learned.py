"""The ensemble as a dynamics model: fitted, and sampled from with every row met by one elite."""

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import replay
from mbpo_jax.config import Config
from mbpo_jax.models import diagnostics, fit, fusion
from mbpo_jax.models.ensemble import (
    Ensemble,
    EnsembleState,
    Outcome,
    make_ensemble,
    select_members,
)
from mbpo_jax.models.rows import check_propagation, in_shares, map_blocks
from mbpo_jax.nets import networks
from mbpo_jax.types import (
    DynamicsModel,
    EnvSpec,
    Point,
    Prediction,
    PyTree,
    TerminationFn,
    Transition,
)


def make_learned_model(
    spec: EnvSpec, config: Config, known_termination: TerminationFn | None
) -> DynamicsModel:
    """Build the learned model of an environment.

    Args:
      spec: sizes.
      config: of the ensemble and its fit.
      known_termination: the environment's rule; None to learn it.
    """
    optimizer = optax.adam(config.fit.learning_rate)
    ensemble = make_ensemble(
        spec, config.ensemble, optimizer, learned_termination=known_termination is None
    )
    num_elites = config.ensemble.num_elites

    def refit(key: jax.Array, state: EnsembleState, real: replay.ReplayState, env_steps):
        # The number of rows bounds the loops of a fit. Under `vmap` it must not be one number a
        # run, as the buffer's size is: else each gradient step copies the parameters of every run.
        # So a run that left transitions out repeats some of the others.
        return fit.fit(
            key,
            state,
            real,
            ensemble,
            optimizer,
            config.fit,
            bound_penalty_weight=config.ensemble.bound_penalty,
            normalize_targets=config.ensemble.normalize_targets,
            num_rows=jnp.minimum(env_steps, replay.capacity(real)),
            # A run that diverged in its first step is never fitted; the others do not wait for it.
            is_cold=(optax.tree_utils.tree_get(state.optimizer, "count") == 0)
            & (env_steps <= config.random_steps),
        )

    def step(
        key: jax.Array, elites: EnsembleState, point: Point, action: jax.Array, propagation: str
    ) -> tuple[Point, Prediction]:
        check_propagation(propagation)
        observation = point.observation
        if propagation == "mean":
            sample, terminated = mean_outcome(ensemble, elites, observation, action)
            if terminated is None:
                assert known_termination is not None
                terminated = known_termination(sample[:, 1:])
            return sanitized(sample, terminated, observation)
        share_key, sample_key = jax.random.split(key)
        member = 0
        if propagation == "step":
            member = jax.random.randint(share_key, (), 0, num_elites)

        def predict(key: jax.Array, inputs: PyTree) -> tuple[jax.Array, jax.Array]:
            outcome = ensemble.predict(elites, *inputs)
            if propagation == "members":
                return without_noise(outcome, known_termination)
            return sampled(key, outcome, known_termination)

        def outcome(inputs: PyTree) -> tuple[jax.Array, jax.Array]:
            return map_blocks(predict, sample_key, inputs)

        sample, terminated = in_shares(outcome, (observation, action), num_elites, member)
        return sanitized(sample, terminated, observation)

    def diagnose(state: EnsembleState, real: replay.ReplayState):
        return diagnostics.diagnose(
            ensemble,
            state,
            known_termination,
            real,
            num_rows=config.steps_per_fit,
            length=config.rollout.diagnostic_length,
        )

    def of_all(elites: EnsembleState, point: Point, action: jax.Array) -> Outcome:
        def predict(key: jax.Array, inputs: PyTree) -> Outcome:
            del key
            return ensemble.predict(elites, *inputs)

        members = elites.params.members
        rows = [networks.for_all(members, x) for x in (point.observation, action)]
        return map_blocks(predict, jax.random.key(0), rows)

    def outcomes(
        elites: EnsembleState, point: Point, action: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        outcome = of_all(elites, point, action)
        return outcome.mean, outcome.std

    def fused(
        key: jax.Array, elites: EnsembleState, point: Point, action: jax.Array
    ) -> tuple[Point, Prediction, jax.Array]:
        outcome = of_all(elites, point, action)
        together = fusion.fuse(outcome.mean, outcome.std)
        member_key, sample_key, stop_key = jax.random.split(key, 3)
        member = jax.random.randint(member_key, action.shape[:1], 0, num_elites)
        met = jax.tree.map(lambda x: x[member, jnp.arange(len(member))], outcome)
        sample = fusion.sample_after(sample_key, together, met.mean, met.std)
        stops = predict_termination(met, sample[:, 1:], known_termination, stop_key)
        point, prediction = sanitized(sample, stops, point.observation)
        return point, prediction, together.conditional_variance

    def follow(key: jax.Array, elites: EnsembleState, batch: Transition):
        del key, elites
        return Point(batch.next_observation), batch

    return DynamicsModel(
        num_members=num_elites,
        needs_simulator=False,
        init=ensemble.init,
        fit=refit,
        ready=lambda state: select_members(state, state.elites),
        start=lambda observation, simulator: Point(observation),
        follow=follow,
        step=step,
        diagnose=diagnose,
        outcomes=outcomes,
        fused=fused,
    )


def sampled(
    key: jax.Array, outcome: Outcome, known_termination: TerminationFn | None
) -> tuple[jax.Array, jax.Array]:
    """Sample what each member predicts for its own rows.

    Args:
      key: a key, used up.
      outcome: predictions `[E, B, ...]`.
      known_termination: the environment's rule; None for the learned head.

    Returns:
      Reward and next observation `[E, B, 1 + O]`, and predicted terminations `[E, B]` bool.
    """
    noise_key, termination_key = jax.random.split(key)
    sample = outcome.mean + outcome.std * jax.random.normal(noise_key, outcome.mean.shape)
    stops = predict_termination(outcome, sample[..., 1:], known_termination, termination_key)
    return sample, stops


def without_noise(
    outcome: Outcome, known_termination: TerminationFn | None
) -> tuple[jax.Array, jax.Array]:
    """Return what `sampled` does, but means, and the likelier of going on and terminating."""
    if known_termination is not None:
        return outcome.mean, known_termination(outcome.mean[..., 1:])
    assert outcome.termination_logit is not None
    return outcome.mean, outcome.termination_logit > 0.0


def predict_termination(
    outcome: Outcome, next_observation: jax.Array, known: TerminationFn | None, key: jax.Array
) -> jax.Array:
    """Return predicted terminations `[E, B]` bool: by the known rule, else drawn from the head."""
    if known is not None:
        return known(next_observation)
    assert outcome.termination_logit is not None
    return jax.random.bernoulli(key, jax.nn.sigmoid(outcome.termination_logit))


def mean_outcome(
    ensemble: Ensemble, members: EnsembleState, observation: jax.Array, action: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Return the mean prediction of all members, without noise.

    Returns:
      Reward and next observation `[B, 1 + O]`, and whether termination is more likely than not,
      `[B]`; None without a learned head.
    """
    outcome = diagnostics.predict_all(ensemble, members, observation, action)
    logit = outcome.termination_logit
    terminated = None if logit is None else jnp.mean(jax.nn.sigmoid(logit), axis=0) > 0.5
    return jnp.mean(outcome.mean, axis=0), terminated


def sanitized(
    sample: jax.Array, terminated: jax.Array, observation: jax.Array
) -> tuple[Point, Prediction]:
    """End rollouts at non-finite predictions: they stay where they are and are paid nothing.

    Args:
      sample: reward and next observation `[B, 1 + O]`.
      terminated: `[B]` bool.
      observation: `[B, O]` before the step.
    """
    finite = jnp.all(jnp.isfinite(sample), axis=-1)
    reward = jnp.where(finite, sample[:, 0], 0.0)
    following = jnp.where(finite[:, None], sample[:, 1:], observation)
    discount = 1.0 - (terminated | ~finite).astype(jnp.float32)
    return Point(following), Prediction(reward, discount, finite)
