"""Retrace from replay sequences: reductions and a sequence computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents.sac import td0_target
from mbpo_jax.algorithms.retrace import first_transition, retrace_target
from mbpo_jax.config import Config, RetraceConfig, SACConfig
from mbpo_jax.replay import Sequence
from mbpo_jax.types import Transition
from tests import scalar_control as system

TARGET_LOG_PROB = -0.4
BEHAVIOUR_LOG_PROBS = jnp.asarray([-0.1, 0.3, -1.0, 0.5])


def settings(**changes) -> Config:
    return Config(sac=SACConfig(gamma=system.GAMMA), retrace=RetraceConfig(**changes))


def make_nets():
    def log_prob(policy, observation, action):
        return jnp.full(observation.shape[:-1], TARGET_LOG_PROB)

    return system.make_nets()._replace(log_prob=log_prob)


def sequences(discount=(1.0, 1.0, 1.0, 1.0), connected=(True, True, True, True)) -> Sequence:
    """Return two sequences of four transitions each, `[B, T]`."""
    observation = jnp.asarray([[0.5, -1.0, 2.0, 0.1], [1.5, 0.2, -0.7, 0.9]])[..., None]
    action = 0.3 - 0.1 * observation
    reward = jnp.asarray([[1.0, 2.0, -1.0, 0.5], [0.0, 1.0, 3.0, -2.0]])
    rows = observation.shape[:2]
    transitions = Transition(
        observation,
        action,
        reward,
        jnp.broadcast_to(jnp.asarray(discount), rows),
        jnp.roll(observation, -1, axis=1),
        jnp.broadcast_to(BEHAVIOUR_LOG_PROBS, rows),
    )
    return Sequence(transitions, jnp.broadcast_to(jnp.asarray(connected), rows))


def regress(config, batch, error=0.3):
    state = system.make_state((error, error + 0.2))
    return retrace_target(config)(jax.random.key(0), make_nets(), state, (), batch)


def by_hand(batch, error, decay, correction):
    """Compute the first target of each sequence from the last to the first, in NumPy."""
    steps = jax.tree.map(lambda x: np.asarray(x, np.float64), batch.transitions)
    reward, discount = steps.reward, steps.discount
    observation, following = steps.observation[..., 0], steps.next_observation[..., 0]
    value = system.exact_q(following, system.GAIN * following) + error + system.ENTROPY_BONUS
    target = reward[:, -1] + system.GAMMA * discount[:, -1] * value[:, -1]
    bonus = -system.ALPHA * TARGET_LOG_PROB
    for t in reversed(range(reward.shape[1] - 1)):
        goes_on = np.asarray(batch.connected)[:, t + 1]
        if correction == "retrace":
            ratio = min(1.0, float(np.exp(TARGET_LOG_PROB - BEHAVIOUR_LOG_PROBS[t + 1])))
            q = system.exact_q(observation[:, t + 1], steps.action[:, t + 1, 0]) + error
            behind = value[:, t] + goes_on * decay * ratio * (target - q)
        else:
            trace = decay * goes_on
            behind = (1.0 - trace) * value[:, t] + trace * (bonus + target)
        target = reward[:, t] + system.GAMMA * discount[:, t] * behind
    return target


@pytest.mark.parametrize("changes", [{"decay": 0.0}, {"decay": 0.0, "correction": "none"}])
def test_without_traces_the_target_is_td0(changes):
    batch = sequences()
    got = regress(settings(**changes), batch)
    state = system.make_state((0.3, 0.5))
    first = first_transition(batch)
    expected = td0_target(system.GAMMA)(jax.random.key(1), make_nets(), state, (), first)
    for a, b in zip(got[:3], expected[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("correction", ["retrace", "none"])
@pytest.mark.parametrize("decay", [0.5, 1.0])
@pytest.mark.parametrize(
    ("discount", "connected"),
    [
        ((1.0, 1.0, 1.0, 1.0), (True, True, True, True)),
        # A termination within: what follows belongs to the next episode.
        ((1.0, 0.0, 1.0, 1.0), (True, True, False, False)),
        # A time limit within: the value beyond it is bootstrapped.
        ((1.0, 1.0, 1.0, 1.0), (True, True, False, False)),
        # The sequence begins with the newest transition.
        ((1.0, 1.0, 1.0, 1.0), (True, False, False, False)),
    ],
)
def test_targets_of_sequences_are_those_computed_by_hand(correction, decay, discount, connected):
    batch = sequences(discount, connected)
    got = regress(settings(decay=decay, correction=correction), batch)
    expected = by_hand(batch, 0.3, decay, correction)
    np.testing.assert_allclose(got.target, expected, rtol=1e-5)
    np.testing.assert_array_equal(got.observation, batch.transitions.observation[:, 0])


def test_what_lies_beyond_a_break_has_no_influence():
    connected = (True, True, False, False)
    batch = sequences(connected=connected)
    other = batch._replace(
        transitions=batch.transitions._replace(
            reward=batch.transitions.reward.at[:, 2:].add(100.0),
            log_prob=batch.transitions.log_prob.at[:, 2:].add(-50.0),
        )
    )
    for correction in ("retrace", "none"):
        config = settings(correction=correction)
        np.testing.assert_array_equal(regress(config, batch).target, regress(config, other).target)


def test_critics_are_drawn_once_for_a_target():
    drawn = []

    def chosen(key, critics):
        drawn.append(key)
        return critics

    nets = make_nets()._replace(chosen=chosen)
    state = system.make_state((0.3, 0.5))
    retrace_target(settings())(jax.random.key(0), nets, state, (), sequences())
    assert len(drawn) == 1
