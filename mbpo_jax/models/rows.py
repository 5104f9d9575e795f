"""How rows of model rollouts are laid out: in equal shares for members, in blocks for caches."""

import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.config import Propagation
from mbpo_jax.loops import map_turns
from mbpo_jax.types import PyTree

BLOCK_ROWS = 10_000
"""Most rows that the networks see at once on a CPU, whose caches hold their activations then: on
two cores, 100,000 rollouts take a quarter less time."""


PROPAGATIONS = (*typing.get_args(Propagation), "members")
"""How rows may meet the members of a model: as a setting says, or each share its own, in the
mean."""


def check_propagation(propagation: str) -> None:
    """Raise a ValueError unless rows can meet the members of a model in this way."""
    if propagation not in PROPAGATIONS:
        raise ValueError(f"propagation: {propagation!r}; use one of: {', '.join(PROPAGATIONS)}")


def where_rows(condition: jax.Array, chosen: PyTree, other: PyTree) -> PyTree:
    """Return the rows `[B, ...]` of one tree where `condition [B]`, else those of the other.

    Or members `[E, ...]` where `condition [E]`.
    """

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.expand_dims(condition, tuple(range(1, a.ndim))), a, b)

    return jax.tree.map(pick, chosen, other)


def in_shares(
    fn: Callable[[PyTree], PyTree], rows: PyTree, num_shares: int, first: jax.Array | int
) -> PyTree:
    """Apply a function of members' own rows `[E, n, ...]` to rows `[B, ...]`.

    Rows are cut into E equal shares, filled up with zeros; the i-th share goes to the member
    `first + i`, modulo E. With a random `first` each row meets each member with equal probability.
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    size = -(-num_rows // num_shares)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, num_shares * size - num_rows), *[(0, 0)] * (x.ndim - 1)])
        return jnp.roll(x, first * size, axis=0).reshape(num_shares, size, *x.shape[1:])

    def join(x: jax.Array) -> jax.Array:
        return jnp.roll(x.reshape(-1, *x.shape[2:]), -first * size, axis=0)[:num_rows]

    return jax.tree.map(join, fn(jax.tree.map(cut, rows)))


def map_blocks(fn: Callable[[jax.Array, PyTree], PyTree], key: jax.Array, rows: PyTree) -> PyTree:
    """Apply `fn` to blocks of `rows [E, N, ...]`, cut along `N`, each with a key of its own.

    Args:
      fn: `(key, rows [E, n, ...]) -> arrays [E, n, ...]`, `E n` being `BLOCK_ROWS` at most.
      key: a key, used up; each block gets its own.
      rows: as above; the last block is filled up with zeros.

    Returns:
      Arrays `[E, N, ...]`.
    """
    num_members, num_rows = jax.tree.leaves(rows)[0].shape[:2]
    num_blocks = -(-num_rows // max(BLOCK_ROWS // num_members, 1))
    if num_blocks == 1:
        return fn(key, rows)
    size = -(-num_rows // num_blocks)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, num_blocks * size - num_rows), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(x.reshape(num_members, num_blocks, size, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(num_members, -1, *x.shape[3:])[:, :num_rows]

    keys = jax.random.split(key, num_blocks)
    blocks = map_turns(lambda x: fn(*x), (keys, jax.tree.map(cut, rows)))
    return jax.tree.map(join, blocks)
