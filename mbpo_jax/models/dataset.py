"""What a fit of the ensemble reads: hold-out, training rows, a bootstrap for each member, scaled.

As in MBPO (Janner et al. 2019, arXiv:1906.08253, appendix and published code). Everything stays in
the order of the replay buffer; what is chosen are rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.config import FitConfig
from mbpo_jax.models.ensemble import Ensemble
from mbpo_jax.nets.normalizer import Scaler, fit_scaler, identity_scaler, scale
from mbpo_jax.replay import ReplayState

HOLDOUT_BLOCK = 256
"""Rows of the hold-out that are predicted at once; a memory bound without effect on the result."""


class Split(NamedTuple):
    """Which rows of the buffer are trained on and which are held out.

    Attributes:
      order: `[capacity]` int32, valid rows in random order; the first `num_holdout` of them are
        held out, the next `num_train` are trained on.
      num_holdout: int32.
      num_train: int32.
    """

    order: jax.Array
    num_holdout: jax.Array
    num_train: jax.Array


class Dataset(NamedTuple):
    """What a fit reads; it stays outside of the loops' carries.

    Attributes:
      inputs: `[capacity, O + A]`, scaled.
      targets: `[capacity, D]`, scaled.
      terminated: `[capacity]` float32, 0 or 1.
      split: which rows are trained on and which are held out.
      holdout_rows: int32, the rows that are held out and, in blocks that are whole, others that
        carry no weight behind them.
    """

    inputs: jax.Array
    targets: jax.Array
    terminated: jax.Array
    split: Split
    holdout_rows: jax.Array


def shuffled(key: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the numbers of the valid places `[..., N]` in random order, others behind them.

    It is the order of the numbers that `jax.random.uniform` would draw, whose bits are sorted
    instead: on a CPU XLA sorts whole numbers up to three times as fast as fractions.
    """
    bits = jax.random.bits(key, valid.shape, jnp.uint32) >> 9  # as many as a fraction has
    return jnp.argsort(jnp.where(valid, bits, jnp.uint32(2**32 - 1)))


def split_rows(
    key: jax.Array,
    state: ReplayState,
    config: FitConfig,
    num_rows: jax.Array | int | None = None,
) -> Split:
    """Split the valid rows at random into hold-out and training rows.

    A single row is both if `num_rows` asks for two or more; so is a row of zeros, if there is none.

    Args:
      key: a key, used up.
      state: the buffer.
      config: how many are held out.
      num_rows: how many to make of the valid rows by repeating some of each kind, no fewer than
        there are; just these if None.
    """
    rows = replay.capacity(state)
    age = (state.position - 1 - jnp.arange(rows)) % rows
    order = shuffled(key, age < state.size)

    def holdout_of(size: jax.Array | int) -> jax.Array:
        wanted = jnp.floor(size * config.holdout_ratio).astype(jnp.int32)
        return jnp.clip(wanted, 1, min(config.max_holdout, rows))

    num_rows = state.size if num_rows is None else num_rows
    num_holdout, distinct = holdout_of(num_rows), holdout_of(state.size)
    place = jnp.arange(rows)
    trained = distinct + (place - num_holdout) % jnp.maximum(state.size - distinct, 1)
    place = jnp.where(place < num_holdout, place % distinct, trained)
    order = order[jnp.minimum(place, jnp.maximum(state.size - 1, 0))]
    return Split(order, num_holdout, num_rows - num_holdout)


def training_rows(split: Split, slots: jax.Array) -> jax.Array:
    """Return the rows of the buffer that are the training rows of these numbers, from 0 on."""
    return split.order[(split.num_holdout + slots) % split.order.shape[0]]


def draw_member_rows(
    key: jax.Array, split: Split, num_members: int, *, bootstrap: bool
) -> jax.Array:
    """Choose the rows each member trains on, `[E, capacity]` int32; the first `num_train` count.

    They are in random order: drawn with replacement, or all training rows, shuffled per member.
    """
    shape = (num_members, split.order.shape[0])
    if bootstrap:
        slots = jax.random.randint(key, shape, 0, split.num_train)
    else:
        slots = shuffled(key, jnp.broadcast_to(jnp.arange(shape[1]) < split.num_train, shape))
    return training_rows(split, slots)


def make_dataset(
    key: jax.Array,
    ensemble: Ensemble,
    state: ReplayState,
    config: FitConfig,
    *,
    normalize_targets: bool,
    num_rows: jax.Array | int | None = None,
) -> tuple[Dataset, Scaler, Scaler]:
    """Split the buffer and scale it with the statistics of the training rows, see `split_rows`.

    Returns:
      The dataset, the input scaler `[O + A]` and the target scaler `[D]`.
    """
    split = split_rows(key, state, config, num_rows)
    inputs = ensemble.inputs(state.data.observation, state.data.action)
    targets = ensemble.targets(state.data)
    place = jnp.arange(replay.capacity(state))
    trained = (place >= split.num_holdout) & (place < split.num_holdout + split.num_train)
    # A row counts once, however often it is repeated.
    weight = jnp.zeros(place.shape).at[split.order].max(trained.astype(jnp.float32))
    input_scaler = fit_scaler(inputs, weight)
    target_scaler = (
        fit_scaler(targets, weight) if normalize_targets else identity_scaler(targets.shape[1])
    )
    # The hold-out is read in whole blocks.
    blocks = -(-min(config.max_holdout, place.shape[0]) // HOLDOUT_BLOCK)
    dataset = Dataset(
        inputs=scale(input_scaler, inputs),
        targets=scale(target_scaler, targets),
        terminated=1.0 - state.data.discount,
        split=split,
        holdout_rows=jnp.resize(split.order, (blocks * HOLDOUT_BLOCK,)),
    )
    return dataset, input_scaler, target_scaler
