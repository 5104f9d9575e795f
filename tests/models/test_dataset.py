"""The data set of a fit: which rows are held out, who trains on which, how they are scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.config import FitConfig
from mbpo_jax.models import dataset
from mbpo_jax.nets.normalizer import Scaler
from tests.linear_system import NUM_MEMBERS, dataset_of, filled, fit_config


def draw_split(key: jax.Array, state: replay.ReplayState, config: FitConfig) -> dataset.Split:
    return jax.jit(lambda key, state: dataset.split_rows(key, state, config))(key, state)


@pytest.mark.parametrize(
    ("num_rows", "window", "max_holdout", "num_holdout"),
    [
        (2, 40, 99, 1),
        (9, 40, 99, 1),
        (34, 40, 99, 6),
        (40, 40, 99, 8),
        (70, 40, 99, 8),
        (70, 13, 99, 2),
        (40, 40, 5, 5),
    ],
)
def test_holdout_and_training_rows_share_the_valid_rows(
    key, num_rows, window, max_holdout, num_holdout
):
    state, config = filled(num_rows, 40, max_size=window), fit_config(max_holdout=max_holdout)
    split_key, *member_keys = jax.random.split(key, 3)
    split = draw_split(split_key, state, config)
    valid = [t % 40 for t in range(num_rows)][-window:]
    order, num_valid = np.asarray(split.order), len(valid)
    assert int(split.num_holdout) == num_holdout
    assert int(split.num_train) == num_valid - num_holdout
    assert sorted(order[:num_valid]) == sorted(valid), "hold-out and training rows are disjoint"
    train = order[num_holdout:num_valid]
    for bootstrap, member_key in zip((True, False), member_keys, strict=True):
        rows = dataset.draw_member_rows(member_key, split, NUM_MEMBERS, bootstrap=bootstrap)
        for member in np.asarray(rows[:, : num_valid - num_holdout]):
            assert set(member) <= set(train)
            assert bootstrap or sorted(member) == sorted(train)
        # Even where all train on the same rows, no two meet them in the same order.
        assert (
            len(train) < 5
            or len({tuple(member) for member in np.asarray(rows[:, : len(train)])}) == 3
        )


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 25, 40])
@pytest.mark.parametrize("max_holdout", [5, 99])
def test_missing_rows_are_filled_with_others_of_their_kind(key, num_rows, max_holdout):
    """Of 40 places 8 are held out, 5 at most; a single row, or one of zeros, is both."""
    state, config = filled(num_rows, 50), fit_config(max_holdout=max_holdout)
    split = jax.jit(lambda key, state: dataset.split_rows(key, state, config, jnp.int32(40)))(
        key, state
    )
    num_holdout = min(8, max_holdout)
    assert (int(split.num_holdout), int(split.num_train)) == (num_holdout, 40 - num_holdout)
    held_out = np.asarray(split.order[:num_holdout])
    trained = np.asarray(split.order[num_holdout:40])
    assert set(held_out) | set(trained) == set(range(max(num_rows, 1)))
    assert num_rows < 2 or not set(held_out) & set(trained)
    distinct = max(min(num_rows // 5, max_holdout), 1)
    assert len(set(held_out)) == distinct
    for rows in (held_out, trained):
        _, counts = np.unique(rows, return_counts=True)
        assert np.max(counts) - np.min(counts) <= 1


def test_places_are_shuffled_as_drawn_fractions_would_order_them(key):
    """With ties, of which there are some among so many."""
    valid = jnp.arange(40_000) % 7 != 3
    fractions = jax.random.uniform(jax.random.clone(key), valid.shape)
    assert len(np.unique(fractions)) < len(fractions)
    expected = jnp.argsort(jnp.where(valid, fractions, jnp.inf))
    np.testing.assert_array_equal(dataset.shuffled(key, valid), expected)


def test_every_valid_row_is_held_out_equally_often(key):
    state, config, num_fits = filled(20, 24), fit_config(), 400
    split = jax.jit(jax.vmap(lambda key: dataset.split_rows(key, state, config)))(
        jax.random.split(key, num_fits)
    )
    counts = np.bincount(np.ravel(split.order[:, :4]), minlength=20)
    assert counts.size == 20
    # 19 degrees of freedom; without replacement the counts vary by a factor 16/20 less.
    assert np.sum((counts - 80.0) ** 2 / (80.0 * 0.8)) * 19 / 20 < 60.0


def test_members_train_on_different_resamples(key):
    num_train = 800
    split = dataset.Split(jnp.arange(1000), jnp.int32(200), jnp.int32(num_train))
    rows = np.asarray(dataset.draw_member_rows(key, split, NUM_MEMBERS, bootstrap=True))
    rows = rows[:, :num_train]
    assert rows.min() >= 200
    distinct = np.asarray([len(np.unique(member)) for member in rows])
    # 1 - 1/e of the rows are drawn at least once; the share's standard deviation is 0.011.
    np.testing.assert_allclose(distinct / num_train, 1.0 - np.exp(-1.0), atol=0.05)
    for i in range(NUM_MEMBERS):
        assert np.mean(rows[i] == rows[i - 1]) < 0.02


@pytest.mark.parametrize("normalize_targets", [False, True])
@pytest.mark.parametrize("num_rows", [None, 50])
def test_scalers_see_the_training_rows_only(key, normalize_targets, num_rows):
    """Each of them once, though some be repeated: there are 50 places for 45 rows."""
    state = filled(60, 50, max_size=45)
    data_set, input_scaler, target_scaler = dataset_of(
        key, state, fit_config(), normalize_targets, num_rows
    )
    valid = [t % 50 for t in range(60)][-45:]
    holdout = np.asarray(data_set.holdout_rows[: int(data_set.split.num_holdout)])
    train = sorted(set(valid) - set(holdout))
    assert len(set(holdout)) == 9
    assert (len(holdout), int(data_set.split.num_train)) == ((10, 40) if num_rows else (9, 36))
    assert len(train) == 36
    data = state.data
    inputs = np.concatenate([data.observation, data.action], axis=-1).astype(float)
    change = np.asarray(data.next_observation) - np.asarray(data.observation)
    targets = np.concatenate([data.reward[:, None], change], axis=-1).astype(float)
    identity = Scaler(np.zeros(3), np.ones(3))
    for scaler, x, scaled, fitted in (
        (input_scaler, inputs, data_set.inputs, True),
        (target_scaler, targets, data_set.targets, normalize_targets),
    ):
        expected = Scaler(x[train].mean(0), x[train].std(0)) if fitted else identity
        np.testing.assert_allclose(scaler.mean, expected.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scaler.std, expected.std, rtol=1e-5)
        np.testing.assert_allclose(scaled, (x - expected.mean) / expected.std, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(data_set.terminated, 1.0 - data.discount)
