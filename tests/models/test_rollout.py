"""Branched rollouts in models whose every outcome is known."""

import functools
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.config import RolloutConfig
from mbpo_jax.models import rollout
from mbpo_jax.models.ensemble import Outcome
from mbpo_jax.types import Transition
from tests.probe_environments import linear_model

# The schedule of k.

SCHEDULES = [(20, 150, 1, 15), (20, 100, 1, 25), (1, 15, 1, 1), (0, 7, 2, 5), (3, 3, 1, 4)]


def schedule(start, end, low, high):
    return RolloutConfig(start_epoch=start, end_epoch=end, min_length=low, max_length=high)


def exact_length(epoch, start, end, low, high):
    """Return `int(clip(linear))` in exact arithmetic."""
    if epoch <= start:
        return low
    if epoch >= end:
        return high
    return int(low + Fraction(epoch - start, end - start) * (high - low))


@pytest.mark.parametrize("numbers", SCHEDULES)
def test_length_is_linear_between_start_and_end_and_rounded_down(numbers):
    epochs = jnp.arange(-1, 160)
    lengths = jax.jit(jax.vmap(lambda epoch: rollout.rollout_length(epoch, schedule(*numbers))))
    expected = [exact_length(epoch, *numbers) for epoch in range(-1, 160)]
    np.testing.assert_array_equal(lengths(epochs), expected)
    assert lengths(epochs).dtype == jnp.int32


@pytest.mark.parametrize(
    ("epoch", "length"),
    [(0, 1), (20, 1), (29, 1), (30, 2), (85, 8), (149, 14), (150, 15), (999, 15)],
)
def test_length_by_hand_for_hopper(epoch, length):
    assert rollout.rollout_length(epoch, schedule(20, 150, 1, 15)) == length


# Rollouts. A row's reward is the first output, its next observation the others.


def real_data(observations):
    """Return a replay buffer that holds these observations `[n, O]`."""
    observations = jnp.asarray(observations, jnp.float32)
    rows = observations.shape[0]
    empty = replay.init(rows, observations.shape[1], 1)
    zeros = jnp.zeros(rows)
    return replay.add(
        empty, Transition(observations, jnp.zeros((rows, 1)), zeros, zeros, observations)
    )


def stand_still(key, observation):
    return jnp.zeros((*observation.shape[:-1], 1))


def never(observation):
    return jnp.zeros(observation.shape[:-1], bool)


def branch(key, model, observations, *, length, num_rollouts, known=never, policy=stand_still):
    """Roll out into an empty buffer large enough for everything."""
    ensemble, state = model
    capacity = num_rollouts * length
    real = real_data(observations)
    empty = replay.init(capacity, real.data.observation.shape[1], 1)

    @jax.jit
    def run(key):
        return rollout.branch(
            key,
            ensemble,
            state,
            known,
            policy,
            real,
            empty,
            num_rollouts=num_rollouts,
            length=length,
            max_size=capacity,
        )

    buffer, metrics = run(key)
    return rows_of(buffer), {name: float(value) for name, value in metrics.items()}


def rows_of(buffer):
    """Return the valid transitions, oldest first."""
    batch, valid = replay.newest(buffer, replay.capacity(buffer))
    return jax.tree.map(lambda x: np.asarray(x)[np.asarray(valid)], batch)


def counter(num_members=1, std=0.0):
    """Make a model in which the observation grows by 1 per step and is the reward."""
    return linear_model([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]] * num_members, std)


def test_with_next_to_no_noise_rollouts_follow_the_closed_loop(key):
    dynamics, control = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5], [0.2]])
    gain, cost = np.array([[0.3, -0.4]]), np.array([[1.0, -1.0, 0.5]])
    weight = np.concatenate([cost, np.concatenate([dynamics, control], axis=1)])
    model = linear_model(weight, [[2.0, 0.0, 0.0]] * 2, 1e-6)

    def policy(key, observation):
        return -observation @ jnp.asarray(gain.T, jnp.float32)

    start = np.array([0.7, -0.3])
    rows, _ = branch(key, model, [start], length=4, num_rollouts=6, policy=policy)
    closed_loop = dynamics - control @ gain
    for step in range(4):
        observation = np.linalg.matrix_power(closed_loop, step) @ start
        action = -gain @ observation
        block = jax.tree.map(lambda x, step=step: x[6 * step : 6 * step + 6], rows)
        reward = (cost @ np.concatenate([observation, action]))[0] + 2.0
        for actual, expected in zip(
            block, (observation, action, reward, 1.0, closed_loop @ observation), strict=True
        ):
            np.testing.assert_allclose(actual, np.broadcast_to(expected, actual.shape), atol=1e-4)


def test_outcomes_are_gaussian_samples(key):
    model = linear_model([[1.0, 0.0], [1.0, 0.0]], [[3.0, -1.0]] * 2, [0.5, 2.0])
    rows, _ = branch(key, model, [[4.0]], length=1, num_rollouts=8000)
    for sample, mean, std in ((rows.reward, 7.0, 0.5), (rows.next_observation[:, 0], 3.0, 2.0)):
        np.testing.assert_allclose(sample.mean(), mean, atol=5 * std / np.sqrt(8000))
        np.testing.assert_allclose(sample.std(), std, rtol=0.05)
        # Of a Gaussian, 68.3 % lie within one standard deviation.
        np.testing.assert_allclose(np.mean(np.abs(sample - mean) < std), 0.683, atol=0.03)
    correlation = np.corrcoef(rows.reward, rows.next_observation[:, 0])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(8000)


def test_policy_and_model_draw_afresh_for_every_row_and_step(key):
    model = linear_model([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 2, 1.0)

    def policy(key, observation):
        return jax.random.normal(key, observation.shape)

    rows, _ = branch(key, model, [[0.0]], length=3, num_rollouts=20, policy=policy)
    draws = [rows.action, rows.reward, rows.next_observation]
    assert np.unique(np.concatenate([x.ravel() for x in draws])).size == 3 * 3 * 20


def test_start_states_are_uniform_over_the_replay_buffer(key):
    rows, _ = branch(key, counter(), np.arange(10.0)[:, None], length=1, num_rollouts=4000)
    counts = np.bincount(rows.observation[:, 0].astype(int), minlength=10)
    # Chi-square with 9 degrees of freedom: 27.9 is exceeded once in a thousand draws.
    assert np.sum((counts - 400) ** 2 / 400) < 27.9


def test_nothing_is_stored_after_a_predicted_termination(key):
    """Counting up from 0, 2 and 4, a row terminates once it is beyond 4."""
    starts, length = np.array([0, 2, 4]), 4
    rows, metrics = branch(
        key,
        counter(2),
        starts[:, None],
        length=length,
        num_rollouts=60,
        known=lambda observation: observation[..., 0] > 4.5,
    )
    assert rows.observation.max() == 4.0
    np.testing.assert_array_equal(rows.discount, rows.next_observation[:, 0] < 4.5)
    # From 0 four steps and no termination, from 2 three steps, from 4 one.
    first = rows.observation[:60, 0]
    lengths = np.where(first == 0, 4, np.where(first == 2, 3, 1))
    assert rows.reward.size == lengths.sum()
    assert metrics["rollout/length"] == length
    assert metrics["rollout/length_mean"] == pytest.approx(lengths.mean())
    assert metrics["rollout/terminated"] == pytest.approx(np.mean(first > 0))
    assert metrics["rollout/nonfinite"] == 0.0
    assert metrics["rollout/buffer_size"] == lengths.sum()


@pytest.mark.parametrize(
    ("output", "bad"), [(0, np.nan), (1, np.inf)], ids=["reward", "observation"]
)
def test_non_finite_predictions_end_a_rollout_unstored_and_are_counted(key, output, bad):
    ensemble, state = counter(2)

    def predict(state, observation, action):
        outcome = ensemble.predict(state, observation, action)
        broken = (observation > 1.5) & (jnp.arange(2)[None, None] == output)
        return Outcome(jnp.where(broken, bad, outcome.mean), outcome.std, None)

    model = ensemble._replace(predict=predict), state
    rows, metrics = branch(key, model, [[0.0], [2.0]], length=5, num_rollouts=40)
    assert all(np.all(np.isfinite(x)) for x in rows)
    from_zero = np.sum(rows.observation[:, 0] == 0.0)
    # From 0 two steps reach 2; from 2 none succeeds. No episode was seen to end.
    assert rows.reward.size == 2 * from_zero
    assert 0 < from_zero < 40
    np.testing.assert_array_equal(rows.discount, 1.0)
    assert metrics["rollout/nonfinite"] == 40.0
    assert metrics["rollout/terminated"] == 0.0
    assert metrics["rollout/length_mean"] == pytest.approx(2 * from_zero / 40)


def test_elites_share_the_rows_equally_and_rows_change_elites(key):
    """The observation's decimal digits write down which member made each step."""
    elites, num_rollouts, length = [4, 1, 6], 2700, 3
    bias = [[member, member] for member in range(7)]
    model = linear_model([[0.0, 0.0], [10.0, 0.0]], bias, 0.0, elites)
    rows, _ = branch(key, model, [[0.0]], length=length, num_rollouts=num_rollouts)
    for step in range(length):
        members = rows.reward[step * num_rollouts : (step + 1) * num_rollouts]
        met, counts = np.unique(members, return_counts=True)
        np.testing.assert_array_equal(met, sorted(elites))
        np.testing.assert_array_equal(counts, num_rollouts // len(elites))
    histories = rows.next_observation[-num_rollouts:, 0].astype(int)
    expected = [int(f"{a}{b}{c}") for a in elites for b in elites for c in elites]
    met, counts = np.unique(histories, return_counts=True)
    np.testing.assert_array_equal(met, sorted(expected))
    # Chi-square with at most 26 degrees of freedom: 54.1 is exceeded once in a thousand draws.
    assert np.sum((counts - 100) ** 2 / 100) < 54.1


@pytest.mark.parametrize("num_rows", [1, 4, 5, 7, 12])
def test_blocks_hold_every_row_once_in_order_and_have_keys_of_their_own(monkeypatch, key, num_rows):
    monkeypatch.setattr(rollout, "BLOCK_ROWS", 12)

    def fn(key, rows):
        assert rows.shape[0] == 3
        assert rows.shape[1] <= 4
        return rows, jax.random.uniform(key, rows.shape[:2])

    rows = jnp.arange(3.0 * num_rows * 2).reshape(3, num_rows, 2)
    same, noise = rollout.map_blocks(fn, key, rows)
    np.testing.assert_array_equal(same, rows)
    assert noise.shape == (3, num_rows)
    assert len(np.unique(noise)) == 3 * num_rows


def test_elites_share_the_rows_of_many_blocks_equally(monkeypatch, key):
    monkeypatch.setattr(rollout, "BLOCK_ROWS", 50)
    model = linear_model([[0.0, 0.0], [0.0, 0.0]], [[m, m] for m in range(4)], 0.0, [0, 1, 3])
    rows, _ = branch(key, model, [[0.0]], length=1, num_rollouts=300)
    met, counts = np.unique(rows.reward, return_counts=True)
    np.testing.assert_array_equal(met, [0, 1, 3])
    np.testing.assert_array_equal(counts, 100)


@pytest.mark.parametrize("logit", [-1.0, 0.0, 2.0])
def test_a_learned_head_terminates_with_its_probability(key, logit):
    outcome = Outcome(jnp.zeros((2, 4000, 2)), jnp.ones((2, 4000, 2)), jnp.full((2, 4000), logit))
    stops = rollout.predict_termination(outcome, outcome.mean[..., 1:], None, key)
    assert stops.shape == (2, 4000)
    np.testing.assert_allclose(np.mean(stops), 1 / (1 + np.exp(-logit)), atol=0.03)


def test_a_growing_length_is_traced_once_and_retention_is_exact(key):
    """The buffer holds the newest `retain_epochs x rollouts x k` rows, whatever k was before."""
    config = RolloutConfig(
        rollouts_per_step=2, retain_epochs=2, min_length=1, max_length=3, start_epoch=3, end_epoch=5
    )
    epoch_length, rollouts = 4, 8
    capacity = int(rollout.model_buffer_limit(config.max_length, config, epoch_length))
    assert capacity == 2 * 8 * 3
    # Observations stay what they were at the start, so a row tells the epoch that it is from.
    ensemble, state = linear_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 2, 0.0)

    @functools.partial(jax.jit, donate_argnums=1)
    @chex.assert_max_traces(n=1)
    def run(key, buffer, epoch):
        length = rollout.rollout_length(epoch, config)
        return rollout.branch(
            key,
            ensemble,
            state,
            never,
            stand_still,
            real_data(jnp.full((1, 1), epoch)),
            buffer,
            num_rollouts=rollouts,
            length=length,
            max_size=rollout.model_buffer_limit(length, config, epoch_length),
        )

    buffer, everything = replay.init(capacity, 1, 1), []
    for epoch, epoch_key in enumerate(jax.random.split(key, 9)):
        buffer, metrics = run(epoch_key, buffer, jnp.int32(epoch))
        length = exact_length(epoch, 3, 5, 1, 3)
        # What fell out of a smaller window does not come back.
        everything = (everything + [epoch] * rollouts * length)[-2 * rollouts * length :]
        np.testing.assert_array_equal(rows_of(buffer).observation[:, 0], everything)
        assert metrics["rollout/length_mean"] == length
        assert metrics["rollout/buffer_size"] == len(everything)
    assert set(everything) == {7, 8}
