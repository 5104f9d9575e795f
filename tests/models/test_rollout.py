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
from mbpo_jax.envs.termination import never
from mbpo_jax.models import rollout
from mbpo_jax.models.learned import sanitized
from mbpo_jax.models.truncation import accepting
from mbpo_jax.types import RUNS_AXIS, Transition
from tests.probe_environments import linear_dynamics, linear_model

pytestmark = pytest.mark.smoke

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


def linear(*numbers, known=never):
    """Return a linear model and its view; see `linear_model`."""
    return linear_dynamics(linear_model(*numbers)[1], known)


def counter(num_members=1, known=never):
    """Make a model in which the observation grows by 1 per step and is the reward."""
    return linear([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]] * num_members, 0.0, known=known)


def real_data(observations):
    """Return transitions that start from these observations `[n, O]`."""
    observations = jnp.asarray(observations, jnp.float32)
    zeros = jnp.zeros(observations.shape[0])
    return Transition(observations, zeros[:, None], zeros, zeros, observations)


def stand_still(key, observation):
    return jnp.zeros((*observation.shape[:-1], 1))


def branch(key, model, starts, *, length, policy=stand_still, first_action=None, truncation=None):
    """Roll out into an empty buffer that is large enough for everything."""
    dynamics, view = model
    starts = real_data(starts)
    num_rollouts, observation_size = starts.observation.shape
    if first_action is None:
        first_action = jnp.zeros((num_rollouts, 1))
    capacity = num_rollouts * length
    empty = replay.init(capacity, observation_size, 1)

    @jax.jit
    def run(key, first_action):
        return rollout.branch(
            key,
            dynamics,
            view,
            policy,
            starts,
            first_action,
            empty,
            length=length,
            max_size=capacity,
            truncation=truncation,
            remembered=truncation.init() if truncation else (),
        )

    buffer, _, metrics = run(key, first_action)
    return rows_of(buffer), {name: float(value) for name, value in metrics.items()}


newest = jax.jit(replay.newest, static_argnums=1)


def rows_of(buffer):
    """Return the valid transitions, oldest first."""
    batch, valid = newest(buffer, replay.capacity(buffer))
    return jax.tree.map(lambda x: np.asarray(x)[np.asarray(valid)], batch)


def test_with_next_to_no_noise_rollouts_follow_the_closed_loop(key):
    dynamics, control = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5], [0.2]])
    gain, cost = np.array([[0.3, -0.4]]), np.array([[1.0, -1.0, 0.5]])
    weight = np.concatenate([cost, np.concatenate([dynamics, control], axis=1)])
    model = linear(weight, [[2.0, 0.0, 0.0]] * 2, 1e-6)

    def policy(key, observation):
        return -observation @ jnp.asarray(gain.T, jnp.float32)

    start = np.array([0.7, -0.3])
    first = jnp.tile(jnp.float32(-gain @ start), (6, 1))
    rows, _ = branch(key, model, [start] * 6, length=4, policy=policy, first_action=first)
    closed_loop = dynamics - control @ gain
    for step in range(4):
        observation = np.linalg.matrix_power(closed_loop, step) @ start
        action = -gain @ observation
        block = jax.tree.map(lambda x, step=step: x[6 * step : 6 * step + 6], rows)
        reward = (cost @ np.concatenate([observation, action]))[0] + 2.0
        expected = Transition(observation, action, reward, 1.0, closed_loop @ observation)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), atol=1e-4),
            block,
            expected,
        )


def test_a_rollout_ends_where_the_model_is_not_believed(key):
    """From x the counter makes x, x + 1, ...; it is believed below 3."""

    def accept(key, view, point, action):
        return point.observation[:, 0] < 2.5

    rows, metrics = branch(
        key, counter(), [[0.0], [1.0], [5.0]], length=4, truncation=accepting(accept)
    )
    assert sorted(rows.observation[:, 0]) == [0.0, 1.0, 1.0, 2.0, 2.0]
    # One step of each was refused.
    assert metrics["rollout/kept"] == pytest.approx(5 / 8)
    assert metrics["rollout/length_mean"] == pytest.approx(5 / 3)
    assert metrics["rollout/nonfinite"] == 0.0


def test_outcomes_are_gaussian_samples(key):
    model = linear([[1.0, 0.0], [1.0, 0.0]], [[3.0, -1.0]] * 2, [0.5, 2.0])
    rows, _ = branch(key, model, [[4.0]] * 8000, length=1)
    for sample, mean, std in ((rows.reward, 7.0, 0.5), (rows.next_observation[:, 0], 3.0, 2.0)):
        np.testing.assert_allclose(sample.mean(), mean, atol=5 * std / np.sqrt(8000))
        np.testing.assert_allclose(sample.std(), std, rtol=0.05)
        # Of a Gaussian, 68.3 % lie within one standard deviation.
        np.testing.assert_allclose(np.mean(np.abs(sample - mean) < std), 0.683, atol=0.03)
    correlation = np.corrcoef(rows.reward, rows.next_observation[:, 0])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(8000)


def test_policy_and_model_draw_afresh_for_every_row_and_step(key):
    model = linear([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 2, 1.0)

    def policy(key, observation):
        return jax.random.normal(key, observation.shape)

    rows, _ = branch(key, model, np.zeros((20, 1)), length=3, policy=policy)
    assert np.unique(np.concatenate([rows.reward, rows.next_observation[:, 0]])).size == 2 * 3 * 20
    # The policy acts from the second step on.
    assert np.all(rows.action[:20] == 0.0)
    assert np.unique(rows.action[20:]).size == 2 * 20


@pytest.mark.parametrize("num_members", [1, 3, 8])
def test_rows_go_on_where_they_were_in_the_order_of_the_starts(key, num_members):
    """Seven rows meet elites that do not divide them, and still each one counts on by itself."""
    starts = np.array([[30.0], [10.0], [70.0], [0.0], [20.0], [10.0], [50.0]])

    def policy(key, observation):
        return observation / 100.0

    first = jnp.linspace(-1.0, 1.0, 7)[:, None]
    rows, metrics = branch(
        key, counter(num_members), starts, length=3, policy=policy, first_action=first
    )
    observation = np.concatenate([starts, starts + 1, starts + 2])
    np.testing.assert_array_equal(rows.observation, observation)
    np.testing.assert_array_equal(rows.next_observation, observation + 1)
    np.testing.assert_array_equal(rows.reward, observation[:, 0])
    np.testing.assert_array_equal(rows.action[:7], first)
    np.testing.assert_allclose(rows.action[7:], observation[7:] / 100.0, rtol=1e-6)
    assert metrics["rollout/buffer_size"] == 21


def test_nothing_is_stored_after_a_predicted_termination(key):
    """Counting up from 0, 2 and 4, a row terminates at 5, though the model would count on."""
    length, first = 4, np.random.default_rng(0).choice([0.0, 2.0, 4.0], 60)
    model = counter(2, known=lambda observation: observation[..., 0] == 5.0)
    rows, metrics = branch(key, model, first[:, None], length=length)
    # From 0 four steps and no termination, from 2 three steps, from 4 one.
    lengths = np.where(first == 0, 4, np.where(first == 2, 3, 1))
    expected = np.concatenate([first[lengths > step] + step for step in range(length)])
    np.testing.assert_array_equal(rows.observation[:, 0], expected)
    np.testing.assert_array_equal(rows.discount, rows.next_observation[:, 0] != 5.0)
    assert metrics["rollout/length"] == length
    assert metrics["rollout/length_mean"] == pytest.approx(lengths.mean())
    assert metrics["rollout/terminated"] == pytest.approx(np.mean(first > 0))
    assert metrics["rollout/nonfinite"] == 0.0
    assert metrics["rollout/buffer_size"] == lengths.sum()


@pytest.mark.parametrize(
    ("output", "bad"), [(0, np.nan), (1, np.inf)], ids=["reward", "observation"]
)
def test_non_finite_predictions_end_a_rollout_unstored_and_are_counted(key, output, bad):
    dynamics, view = counter(2)

    def step(key, view, point, action, propagation):
        """Count up to 2, beyond which one output is broken."""
        x = point.observation
        broken = (x > 1.5) & (jnp.arange(2)[None] == output)
        sample = jnp.where(broken, bad, jnp.concatenate([x, x + 1.0], axis=1))
        return sanitized(sample, never(x), x)

    first = np.random.default_rng(0).choice([0.0, 2.0], 40)
    rows, metrics = branch(key, (dynamics._replace(step=step), view), first[:, None], length=5)
    jax.tree.map(lambda x: np.testing.assert_equal(np.isfinite(x), True), rows)
    from_zero = np.sum(first == 0.0)
    assert 0 < from_zero < 40
    # From 0 two steps reach 2; from 2 none succeeds. No episode was seen to end.
    np.testing.assert_array_equal(rows.observation[:, 0], np.repeat([0.0, 1.0], from_zero))
    np.testing.assert_array_equal(rows.discount, 1.0)
    assert metrics["rollout/nonfinite"] == 40.0
    assert metrics["rollout/terminated"] == 0.0
    assert metrics["rollout/length_mean"] == pytest.approx(2 * from_zero / 40)


def test_a_row_meets_any_elite_at_any_step_and_elites_share_the_rows_equally(key):
    """The observation's decimal digits write down which member made each step."""
    elites, num_keys, length, num_rows = [4, 1, 6], 2700, 3, 6
    bias = [[member, member] for member in range(7)]
    dynamics, view = linear([[0.0, 0.0], [10.0, 0.0]], bias, 0.0, elites)
    starts = real_data(np.zeros((num_rows, 1)))
    empty = replay.init(num_rows * length, 1, 1)

    @jax.jit
    @jax.vmap
    def run(key):
        return rollout.branch(
            key,
            dynamics,
            view,
            stand_still,
            starts,
            starts.action,
            empty,
            length=length,
            max_size=num_rows * length,
        )[0].data

    data = run(jax.random.split(key, num_keys))
    members = np.asarray(data.reward).reshape(num_keys, length, num_rows)
    np.testing.assert_array_equal(
        np.sort(members), np.broadcast_to([1, 1, 4, 4, 6, 6], members.shape)
    )
    histories = np.asarray(data.next_observation)[:, -num_rows:, 0].astype(int)
    expected = [int(f"{a}{b}{c}") for a in elites for b in elites for c in elites]
    for history in histories.T:
        met, counts = np.unique(history, return_counts=True)
        np.testing.assert_array_equal(met, sorted(expected))
        # Chi-square with 26 degrees of freedom: 54.1 is exceeded once in a thousand draws.
        assert np.sum((counts - 100) ** 2 / 100) < 54.1


def test_runs_of_different_lengths_side_by_side_are_what_they_are_alone(key):
    """And no iteration copies a buffer, as it would if each run decided when its loop ends."""
    model = linear([[0.5, 0.0], [1.0, 0.0]], [[1.0, 0.0]] * 2, 0.1)
    starts, num_rollouts, lengths = np.zeros((5, 1)), 5, (0, 3, 1)
    empty = replay.init(num_rollouts * 3, 1, 1)

    def run(key, length):
        buffer, _, metrics = rollout.branch(
            key,
            *model,
            stand_still,
            real_data(starts),
            jnp.zeros((num_rollouts, 1)),
            empty,
            length=length,
            max_size=num_rollouts * 3,
        )
        return buffer, metrics["rollout/length_mean"]

    keys = jax.random.split(key, 3)
    side_by_side = jax.jit(jax.vmap(run, axis_name=RUNS_AXIS))
    buffers, means = side_by_side(keys, jnp.array(lengths))
    np.testing.assert_array_equal(means, lengths)
    for i, length in enumerate(lengths):
        alone, _ = jax.jit(run)(keys[i], length)
        assert int(buffers.size[i]) == num_rollouts * length
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), buffers, alone
        )
    (loop,) = loops_of(jax.make_jaxpr(side_by_side)(keys, jnp.array(lengths)).jaxpr)
    rows = {(3, num_rollouts * 3), (3, num_rollouts * 3, 1)}
    copied = [e for e in loop.eqns if e.primitive.name == "select_n"]
    assert not any(e.outvars[0].aval.shape in rows for e in copied)


def loops_of(jaxpr):
    """Return the bodies of all while loops of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation.params["body_jaxpr"].jaxpr
        for inner in equation.params.values():
            if isinstance(inner, jax.extend.core.ClosedJaxpr):
                yield from loops_of(inner.jaxpr)


def test_a_growing_length_is_traced_once_and_retention_is_exact(key):
    """The buffer holds the newest `retain_epochs x rollouts x k` rows, whatever k was before."""
    config = RolloutConfig(
        rollouts_per_step=2, retain_epochs=2, min_length=1, max_length=3, start_epoch=3, end_epoch=5
    )
    epoch_length, rollouts = 4, 8
    capacity = int(rollout.model_buffer_limit(config.max_length, config, epoch_length))
    assert capacity == 2 * 8 * 3
    # Observations stay what they were at the start, so a row tells the epoch that it is from.
    dynamics, view = linear([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 2, 0.0)

    @functools.partial(jax.jit, donate_argnums=1)
    @chex.assert_max_traces(n=1)
    def run(key, buffer, epoch):
        length = rollout.rollout_length(epoch, config)
        return rollout.branch(
            key,
            dynamics,
            view,
            stand_still,
            real_data(jnp.full((rollouts, 1), epoch)),
            jnp.zeros((rollouts, 1)),
            buffer,
            length=length,
            max_size=rollout.model_buffer_limit(length, config, epoch_length),
        )

    buffer, everything = replay.init(capacity, 1, 1), []
    for epoch, epoch_key in enumerate(jax.random.split(key, 9)):
        buffer, _, metrics = run(epoch_key, buffer, jnp.int32(epoch))
        length = exact_length(epoch, 3, 5, 1, 3)
        # What fell out of a smaller window does not come back.
        everything = (everything + [epoch] * rollouts * length)[-2 * rollouts * length :]
        np.testing.assert_array_equal(rows_of(buffer).observation[:, 0], everything)
        assert metrics["rollout/length_mean"] == length
        assert metrics["rollout/buffer_size"] == len(everything)
    assert set(everything) == {7, 8}
