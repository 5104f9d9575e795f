"""Trees of arrays as vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mbpo_jax.types import PyTree


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
