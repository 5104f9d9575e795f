"""Loops as each kind of device likes them.

Where the number of turns is known only as they are made, the host of an accelerator would be asked
before each turn whether there is another one, which takes longer than a small step. So turns are
made in chunks of a fixed length there, which XLA can replay as one graph. A CPU loses nothing by
asking, and would lose the turns with which a chunk is filled up.

Where turns do not depend on each other, an accelerator makes all of them at once, so as to launch
as few programs as it can; a CPU makes one after the other, so that its caches hold a turn.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.types import RUNS_AXIS, PyTree

CHUNK = 16
"""Turns in a chunk."""

Turn = Callable[[jax.Array, PyTree], PyTree]


def greatest_of_runs(number: jax.Array | int) -> jax.Array | int:
    """Return the greatest of a number in the runs that are computed side by side, for all of them.

    A loop whose bound differs between runs would copy all of its carry, the buffers, at each step.
    """
    try:
        return jax.lax.pmax(number, RUNS_AXIS)
    except NameError:  # one run, or one after the other
        return number


def repeat(num_turns: jax.Array, turn: Turn, start: PyTree) -> PyTree:
    """Make so many turns, `turn(i, carry) -> carry` with i from 0 on.

    Args:
      num_turns: int32, traced.
      turn: a pure function.
      start: what it starts from.
    """
    return jax.lax.platform_dependent(
        num_turns,
        start,
        cpu=lambda num_turns, start: jax.lax.fori_loop(0, num_turns, turn, start),
        default=lambda num_turns, start: in_chunks(num_turns, turn, start),
    )


def map_turns(fn: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
    """Apply a function to each of the rows `[N, ...]` of a tree: `fn(row [...]) -> [...]`."""
    return jax.lax.platform_dependent(
        rows, cpu=lambda rows: jax.lax.map(fn, rows), default=jax.vmap(fn)
    )


def in_chunks(num_turns: jax.Array, turn: Turn, start: PyTree) -> PyTree:
    """Do what `repeat` does by whole chunks, whose turns beyond the last one change nothing."""

    def turn_if_due(i: jax.Array, carry: PyTree) -> PyTree:
        made = turn(i, carry)
        return jax.tree.map(lambda new, old: jnp.where(i < num_turns, new, old), made, carry)

    def chunk(number: jax.Array, carry: PyTree) -> PyTree:
        return jax.lax.fori_loop(
            0, CHUNK, lambda i, carry: turn_if_due(number * CHUNK + i, carry), carry
        )

    return jax.lax.fori_loop(0, greatest_of_runs(-(-num_turns // CHUNK)), chunk, start)
