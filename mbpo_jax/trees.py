"""Trees of arrays as vectors, and whether they are finite."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mbpo_jax.types import PyTree


def all_finite(tree: PyTree, axes: int = 0) -> jax.Array:
    """Return whether every number in the tree is finite, for each row along the first axes."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    rows = [jnp.all(jnp.isfinite(x), axis=tuple(range(axes, x.ndim))) for x in leaves]
    return functools.reduce(jnp.logical_and, rows, jnp.bool_(True))


def coordinates(tree: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return all floating-point numbers of a tree `[n]`, and how they are put back.

    What else the tree holds stays as it is.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    x, unravel = ravel_pytree([leaf for leaf, yes in zip(leaves, is_float, strict=True) if yes])

    def restore(x: jax.Array) -> PyTree:
        moved = iter(unravel(x))
        return structure.unflatten(
            next(moved) if yes else leaf for leaf, yes in zip(leaves, is_float, strict=True)
        )

    return x, restore
