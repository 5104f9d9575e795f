"""Loops whose length is known only when they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import loops
from mbpo_jax.types import RUNS_AXIS


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


def test_runs_side_by_side_make_as_many_turns_as_each_asks_for():
    """But go round together: a bound of each one's own would copy all of the carry at each turn."""
    turns = jnp.array([0, 3, loops.CHUNK + 2])
    run = jax.vmap(lambda turns: loops.in_chunks(turns, digits, jnp.int32(5)), axis_name=RUNS_AXIS)
    alone = [jax.jit(lambda t: loops.in_chunks(t, digits, jnp.int32(5)))(t) for t in turns]
    np.testing.assert_array_equal(jax.jit(run)(turns), alone)
    (outer,) = [e for e in jax.make_jaxpr(run)(turns).eqns if e.primitive.name == "while"]
    assert outer.params["cond_jaxpr"].out_avals[0].shape == ()
    assert "select_n" not in str(outer.params["cond_jaxpr"])


def test_an_accelerator_maps_at_once():
    make = jax.jit(lambda rows: loops.map_turns(lambda x: jnp.sin(x) + 1.0, rows))
    rows = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(make(rows), np.sin(rows) + 1.0, rtol=1e-6)
    for platform, at_once in (("cuda", True), ("tpu", True), ("cpu", False)):
        text = make.trace(rows).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.while" not in text) == at_once
