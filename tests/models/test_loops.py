"""Loops whose length is known only when they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models import loops


def digits(i: jax.Array, carry: jax.Array) -> jax.Array:
    """Note that turn i was made, and after which one."""
    return (carry * 3 + i) % 10_007


@pytest.mark.parametrize("turns", [0, 1, loops.CHUNK - 1, loops.CHUNK, loops.CHUNK + 1, 50])
@pytest.mark.parametrize("repeat", [loops.repeat, loops.in_chunks])
def test_so_many_turns_are_made_in_order(repeat, turns):
    expected = 5
    for i in range(turns):
        expected = (expected * 3 + i) % 10_007
    made = jax.jit(lambda turns: repeat(turns, digits, jnp.int32(5)))(jnp.int32(turns))
    assert made == expected


def test_an_accelerator_gets_chunks_of_known_length():
    """What is handed to its compiler has a loop of whole chunks in one of unknown length."""
    make = jax.jit(lambda turns: loops.repeat(turns, digits, jnp.int32(5)))
    traced = make.trace(jax.ShapeDtypeStruct((), np.int32))
    for platform, known in (("cuda", True), ("tpu", True), ("cpu", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert (f"dense<{loops.CHUNK}>" in text) == known
