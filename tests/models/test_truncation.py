"""Rules of truncation, with members whose divergence is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models import fusion, truncation
from tests.models.test_rollout import branch, counter

GRID = np.linspace(-40.0, 40.0, 400_001)


def density(mean, std):
    return np.exp(-0.5 * ((GRID - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))


def kl(p, q):
    """Integrate a divergence in nats, where both densities are not zero in floating point."""
    inside = (p > 1e-250) & (q > 1e-250)
    return np.sum(p[inside] * np.log(p[inside] / q[inside])) * (GRID[1] - GRID[0])


def one_dimension(means, stds):
    mean, std = (jnp.asarray(x, jnp.float32)[:, None, None] for x in (means, stds))
    return mean, std


@pytest.mark.parametrize(
    ("means", "stds"), [((0.0, 1.0), (1.0, 1.0)), ((0.0, 2.0, -1.0), (1.0, 0.5, 2.0))]
)
def test_pairwise_divergence_is_that_of_the_geometric_means(means, stds):
    expected = []
    for i in range(len(means)):
        for j in range(i):
            p, q = density(means[i], stds[i]), density(means[j], stds[j])
            middle = np.sqrt(p * q)
            middle /= np.sum(middle) * (GRID[1] - GRID[0])
            expected.append(0.5 * (kl(middle, p) + kl(middle, q)))
    got = truncation.pairwise_divergence(*one_dimension(means, stds))
    np.testing.assert_allclose(got, np.mean(expected), rtol=1e-4)


@pytest.mark.parametrize(
    ("means", "stds"), [((0.0, 1.0), (1.0, 2.0)), ((0.0, 2.0, -1.0), (1.0, 0.5, 2.0))]
)
def test_one_against_rest_is_the_divergence_from_the_moments_of_the_others(means, stds):
    expected = []
    for i in range(len(means)):
        others = [j for j in range(len(means)) if j != i]
        mixture = np.mean([density(means[j], stds[j]) for j in others], axis=0)
        step = GRID[1] - GRID[0]
        mean = np.sum(GRID * mixture) * step
        std = np.sqrt(np.sum((GRID - mean) ** 2 * mixture) * step)
        expected.append(kl(density(means[i], stds[i]), density(mean, std)))
    got = truncation.one_against_rest(*one_dimension(means, stds))
    np.testing.assert_allclose(got, np.mean(expected), rtol=1e-3)


@pytest.mark.parametrize("measure", [truncation.pairwise_divergence, truncation.one_against_rest])
def test_members_that_agree_do_not_diverge_and_components_add_up(measure):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(3, 5, 4)), rng.uniform(0.5, 2.0, (3, 5, 4))
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    same = measure(jnp.repeat(mean[:1], 3, 0), jnp.repeat(std[:1], 3, 0))
    np.testing.assert_allclose(same, np.zeros(5), atol=1e-6)
    each = sum(measure(mean[..., i : i + 1], std[..., i : i + 1]) for i in range(4))
    np.testing.assert_allclose(measure(mean, std), each, rtol=1e-5)
    # Units do not matter.
    np.testing.assert_allclose(measure(100.0 * mean, 100.0 * std), each, rtol=1e-4)


def doubtful_counter():
    """Count up; two members say x + 1 plus and minus x, with a standard deviation of 1.

    Their divergence in the observation is `(2 x)^2 / 8`, half of a square.
    """
    model, view = counter()

    def outcomes(view, point, action):
        del view, action
        x = point.observation
        mean = jnp.stack([x + 1.0 + x, x + 1.0 - x])
        return mean, jnp.ones_like(mean)

    return model._replace(outcomes=outcomes), view


def test_a_rollout_ends_where_divergence_reaches_the_threshold(key):
    """Starts at 0, 1, ..., 4: half squares 0, 0.5, 2, 4.5, 8, whose median is 2."""
    model = doubtful_counter()
    rule = truncation.below_threshold(model[0], scale=2.5, quantile=0.5)
    starts = [[float(x)] for x in range(5)]
    rows, metrics = branch(key, model, starts, length=10, truncation=rule)
    assert metrics["rollout/threshold"] == 5.0
    # What is below sqrt(10), that is 3 at most, is left once more.
    expected = [0, 1, 2, 3, 1, 2, 3, 2, 3, 3]
    assert sorted(rows.observation[:, 0]) == sorted(expected)
    assert metrics["rollout/length_mean"] == pytest.approx(len(expected) / 5)
    assert np.all(rows.discount == 1.0)


def test_the_threshold_is_the_mean_of_all_bounds_so_far(key):
    model, view = doubtful_counter()
    rule = truncation.below_threshold(model, scale=1.0, quantile=1.0)
    state, zeros = rule.init(), jnp.zeros((2, 1))
    alive = jnp.ones(2, bool)
    bounds = []
    for greatest in (2.0, 4.0):
        point = model.start(jnp.asarray([[0.0], [greatest]]), ())
        state, verdict = rule.judge(key, state, view, point, zeros, alive, 0, ())
        bounds.append(greatest**2 / 2)
        assert rule.report(state)["rollout/threshold"] == np.mean(bounds)
        later, _ = rule.judge(key, state, view, point, zeros, alive, 1, ())
        jax.tree.map(np.testing.assert_array_equal, later, state)
    assert list(verdict.stored) == list(verdict.goes_on) == [True, False]


def test_the_rows_that_members_agree_on_are_stored_fewer_from_step_to_step(key):
    model = doubtful_counter()
    rule = truncation.least_uncertain(model[0], length=4, penalty=0.25)
    starts = [[float(x)] for x in range(10)]
    rows, metrics = branch(key, model, starts, length=4, truncation=rule)
    # Of ten rollouts 4, 3, 2 and 1, the lowest at each step; all go on.
    expected = [i + x for i in range(4) for x in range(4 - i)]
    assert list(rows.observation[:, 0]) == expected
    assert metrics["rollout/kept"] == pytest.approx(10 / 40)
    # Two equal Gaussians 2 x apart: KL is their squared distance over two.
    x = rows.observation[:, 0]
    np.testing.assert_allclose(rows.reward, x - 0.25 * 2.0 * x**2, rtol=1e-5)


def test_members_that_agree_lose_nothing_and_others_lose_what_their_doubt_hides():
    agreeing = jax.jit(fusion.fuse)(jnp.full((3, 1, 2), 7.0), jnp.full((3, 1, 2), 0.5))
    np.testing.assert_allclose(agreeing.mean, 7.0)
    np.testing.assert_allclose(agreeing.variance, 0.25)
    np.testing.assert_allclose(agreeing.conditional_variance, 0.0, atol=1e-7)
    # Variances 1 and 4: precisions weigh 4 to 1, and the harmonic mean is 8/5.
    mean, std = jnp.asarray([[[0.0]], [[5.0]]]), jnp.asarray([[[1.0]], [[2.0]]])
    fused = fusion.fuse(mean, std)
    assert float(fused.mean[0, 0]) == pytest.approx(1.0)
    assert float(fused.variance[0, 0]) == pytest.approx(1.6)
    doubt = (1.0**2 + 4.0**2) / 2
    assert float(fused.gain[0, 0]) == pytest.approx(1.6 / (1.6 + doubt))
    left = 1.6 * doubt / (1.6 + doubt)
    assert float(fused.conditional_variance[0, 0]) == pytest.approx(left)
    bits = truncation.lost_bits(fused.conditional_variance)
    entropy = 0.5 * np.log2(2 * np.pi * np.e * left) + 6 * np.log2(10)
    assert float(bits[0, 0]) == pytest.approx(entropy, rel=1e-6)
    assert float(truncation.lost_bits(jnp.float32(0.0))) == 0.0


@pytest.mark.parametrize("doubt", [0.0, 1e-5, 1e-3, 1e-1])
def test_members_that_nearly_agree_are_told_what_they_lose_as_compiled(doubt):
    """Differences as of `1 - gain` would be negative for some, and nothing for others."""
    rng = np.random.default_rng(0)
    std = np.repeat(rng.uniform(0.1, 3.0, (1, 4000, 3)), 2, axis=0)
    mean = rng.normal(size=(1, 4000, 3)) + doubt * std * np.array([1.0, -1.0])[:, None, None]
    args = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    left = jax.jit(lambda *x: fusion.fuse(*x).conditional_variance)(*args)
    assert np.all(left >= 0.0)
    spread = 0.5 * (np.float32(mean)[0] - np.float32(mean)[1]).astype(float)
    variance = np.square(np.float32(std)[0].astype(float))
    expected = variance * spread**2 / (variance + spread**2)
    close = spread**2 > 1e-9 * variance  # where float32 means tell the members apart
    np.testing.assert_allclose(left[close], expected[close], rtol=0.05)
    assert np.all(np.isfinite(jax.jit(truncation.lost_bits)(left)))


def test_samples_have_the_moments_of_the_member_shrunk_to_the_middle(key):
    mean, std = jnp.asarray([[[0.0]], [[5.0]]]), jnp.asarray([[[1.0]], [[2.0]]])
    fused = fusion.fuse(mean, std)
    rows = 200_000
    member = jnp.full((rows, 1), 5.0), jnp.full((rows, 1), 2.0)
    samples = np.asarray(fusion.sample_after(key, fused, *member))
    gain = 1.6 / (1.6 + 8.5)
    expected = 1.0 + gain * 4.0
    variance = gain**2 * 4.0 + (1.0 - gain) * 1.6
    assert samples.mean() == pytest.approx(expected, abs=5 * np.sqrt(variance / rows))
    assert samples.var() == pytest.approx(variance, rel=0.02)


def leaking_counter(bits):
    """Count up by one; a step from x loses `bits(x)` bits, whatever the action."""
    model, view = counter()

    def variance_of(x):
        lost = bits(x) + jnp.log2(truncation.CELL)
        return 2.0 ** (2.0 * lost) / (2.0 * jnp.pi * jnp.e)

    def outcomes(view, point, action):
        # Two members of variance v, v apart: doubt is v as well, and half of v is left.
        v = 2.0 * variance_of(point.observation)
        mean = jnp.stack([jnp.sqrt(v), -jnp.sqrt(v)])
        return mean, jnp.stack([jnp.sqrt(v)] * 2)

    def fused(key, view, point, action):
        following, prediction = model.step(key, view, point, action, "step")
        return following, prediction, variance_of(point.observation)

    return model._replace(outcomes=outcomes, fused=fused), view


@pytest.mark.parametrize(
    ("quantile", "kept"),
    # A step from x loses 4 + x bits, and the starts are 0 to 4: up to 7.6 or 6.4 bits a step.
    [(0.9, [0, 1, 2, 3, 1, 2, 3, 2, 3, 3]), (0.6, [0, 1, 2, 1, 2, 2])],
)
def test_a_rollout_ends_where_a_step_loses_more_than_real_ones_do(key, quantile, kept):
    model = leaking_counter(lambda x: 4.0 + x)
    rule = truncation.within_losses(model[0], 10, quantile, 1.0)
    rows, metrics = branch(key, model, [[float(x)] for x in range(5)], length=10, truncation=rule)
    assert sorted(rows.observation[:, 0]) == sorted(map(float, kept))
    assert metrics["rollout/bits_per_step"] == pytest.approx(4.0 + 4.0 * quantile, rel=1e-4)
    assert metrics["rollout/bits_in_all"] == pytest.approx(80.0, rel=1e-4)
    assert np.all(rows.discount == 1.0)


def test_a_rollout_ends_where_it_has_lost_too_much_in_all(key):
    """Starts that lose 4 to 7 bits a step, and one that loses 8 and is not looked at."""
    model = leaking_counter(lambda x: 4.0 + x % 1.0 * 10.0)
    starts = [[0.1 * x] for x in range(5)]
    rule = truncation.within_losses(model[0], 4, 1.0, 0.01)
    rows, metrics = branch(key, model, starts, length=4, truncation=rule)
    assert 16.0 < metrics["rollout/bits_in_all"] < 17.0
    kind = np.round(10.0 * (rows.observation[:, 0] % 1.0))
    assert [int(np.sum(kind == x)) for x in range(4)] == [4, 3, 2, 2]
