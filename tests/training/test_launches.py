"""Loops in the compiled step, as an accelerator gets them: what cannot be replayed as one graph."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.extend
import jax.numpy as jnp
import pytest

from benchmarks import gpu_launches
from mbpo_jax.training import loop
from tests.choice import mostly_exhaustive
from tests.probe_environments import linear_gaussian, tiny_config

SCOPE = "gradient_step"


def inner_jaxprs(value) -> Iterator[jax.extend.core.Jaxpr]:
    """Yield the programs among the parameters of an operation."""
    if isinstance(value, jax.extend.core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, jax.extend.core.Jaxpr):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from inner_jaxprs(each)


def off_the_cpu(equation) -> dict:
    """Return an operation's parameters without the branches that only a CPU takes."""
    platforms = equation.params.get("branches_platforms")
    if not platforms:
        return equation.params
    pairs = zip(equation.params["branches"], platforms, strict=True)
    return {"branches": tuple(branch for branch, names in pairs if names != ("cpu",))}


def loops_around_gradient_steps(jaxpr, around: str = "none") -> Iterator[str]:
    """Yield the kind of loop that is directly around each operation of a gradient step."""
    for equation in jaxpr.eqns:
        if SCOPE in str(equation.source_info.name_stack):
            yield around
            continue
        name = equation.primitive.name
        inside = {"while": "unknown", "scan": "known"}.get(name, around)
        for value in off_the_cpu(equation).values():
            for inner in inner_jaxprs(value):
                yield from loops_around_gradient_steps(inner, inside)


def found_in(config) -> set[str]:
    program = loop.make_program(linear_gaussian(noise=0.0, episode_length=5))
    state = jax.eval_shape(program.init, config, jax.random.key(0))
    traced = jax.make_jaxpr(program.step)(config, jnp.int32(0), state)
    return set(loops_around_gradient_steps(traced.jaxpr))


@pytest.mark.parametrize("stopping", ["early", "budget"])
@pytest.mark.parametrize("algorithm", ["mbpo", "mve"])
def test_an_accelerator_makes_gradient_steps_in_loops_of_known_length(algorithm, stopping):
    config = tiny_config()
    fit = dataclasses.replace(config.fit, stopping=stopping)
    config = dataclasses.replace(config, algorithm=algorithm, fit=fit)
    assert found_in(config) == {"known"}


def test_a_loop_of_unknown_length_would_be_found():
    @jax.named_scope(SCOPE)
    def step(x):
        return jnp.sin(x)

    def program(n, x):
        return jax.lax.fori_loop(0, n, lambda _, x: step(x), x)

    traced = jax.make_jaxpr(program)(jnp.int32(3), jnp.float32(0))
    assert set(loops_around_gradient_steps(traced.jaxpr)) == {"unknown"}


def test_a_program_is_read_loop_by_loop():
    """Also on a CPU, whose programs are printed alike."""

    def program(n, x):
        def turn(_, x):
            return jax.lax.fori_loop(0, 7, lambda _, x: jnp.sort(x) * 2.0, x)

        return jax.lax.fori_loop(0, n, turn, x)

    text = jax.jit(program).lower(jnp.int32(3), jnp.zeros(64)).compile().as_text()
    read = gpu_launches.read_program(text)
    (outer,) = read.loops
    (inner,) = outer.loops
    assert (read.turns, outer.turns, inner.turns) == (1, None, 7)
    assert gpu_launches.busiest(read, 0) == read
    assert gpu_launches.busiest(read, 2) == inner
    assert outer.launches == outer.kernels + 7 * inner.kernels
    assert read.launches == read.kernels + outer.launches
    assert inner.kinds["sort"] == 1


def test_of_a_condition_the_longest_branch_counts():
    def program(p, x):
        return jax.lax.cond(p, lambda x: jnp.sort(x)[::-1], lambda x: x, x)

    text = jax.jit(program).lower(True, jnp.zeros(64)).compile().as_text()
    read = gpu_launches.read_program(text)
    assert read.kinds["conditional"] == 1
    assert read.kinds["sort"] == 1


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[2,3]{1,0}", 24), ("(f32[2], s8[5]{0}, pred[])", 14), ("u64[]", 8), ("bf16[4,4]", 32)],
)
def test_sizes_of_printed_shapes(shape, size):
    assert gpu_launches.num_bytes(shape) == size


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", mostly_exhaustive(gpu_launches.PARTS, ("sac_update", "budget_fit").__contains__)
)
def test_every_part_is_made_and_can_be_repeated(name):
    fn, carry = gpu_launches.PARTS[name].make()
    made = jax.eval_shape(fn, carry)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
        lambda x: (x.shape, x.dtype), carry
    )
