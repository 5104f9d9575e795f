"""How long compiling took last time, and which programs JAX keeps."""

import jax
import jax.numpy as jnp
import pytest

from mbpo_jax.presets import environment_preset
from mbpo_jax.training import compile_times
from mbpo_jax.training.compile_times import CompileTimes, calls_host
from mbpo_jax.training.group import group_of


@pytest.fixture
def cache(tmp_path):
    """Have JAX keep programs in a folder of this test."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)


def group(**changes):
    return group_of(environment_preset("pendulum", "debug", **changes))


def plain(x):
    return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, 3)[0]


def calling(x):
    def turn(carry, _):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), carry), None

    return jax.jit(lambda x: jax.lax.scan(turn, x, None, 3)[0])(x)


def jaxpr_of(function):
    return jax.make_jaxpr(function)(jnp.float32(1)).jaxpr


def test_calls_of_the_host_are_found_within_loops_and_functions():
    assert not calls_host(jaxpr_of(plain))
    assert calls_host(jaxpr_of(calling))


def test_the_next_start_knows_how_long_it_took(cache):
    first = CompileTimes(group(), 1)
    assert first.last("the training step") == ""
    assert first.when(jaxpr_of(plain)).startswith("at the first start only")
    first.keep("the training step", 31.4)
    first.keep("the evaluation", 5.0)
    second = CompileTimes(group(), 1)
    assert second.last("the training step") == "31 s last time"
    assert second.last("the evaluation") == "5 s last time"
    assert second.when(jaxpr_of(plain)) == ""
    # Another number of devices makes other programs.
    assert CompileTimes(group(), 2).last("the training step") == ""


def test_programs_that_call_the_host_are_compiled_at_every_start_by_an_old_jax(cache, monkeypatch):
    times = CompileTimes(group(), 1)
    monkeypatch.setattr(compile_times, "KEEPS_HOST_CALLS", False)
    assert times.when(jaxpr_of(calling)).startswith(f"at every start: JAX {jax.__version__} keeps")
    monkeypatch.setattr(compile_times, "KEEPS_HOST_CALLS", True)
    assert times.when(jaxpr_of(calling)).startswith("at the first start only")


def test_what_is_said_of_host_calls_is_what_jax_does(cache):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        jax.jit(calling).lower(jnp.float32(1)).compile()
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    kept = list(cache.glob("jit_calling*"))
    assert bool(kept) == compile_times.KEEPS_HOST_CALLS


def test_without_a_cache_nothing_is_written_and_every_start_compiles(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        times = CompileTimes(group(), 1)
        times.keep("the training step", 31.4)
        assert times.when(jaxpr_of(plain)) == "at every start, as there is no compilation cache"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_to_is_no_failure(cache):
    cache.write_text("a file where a folder should be")
    CompileTimes(group(), 1).keep("the training step", 31.4)
    assert CompileTimes(group(), 1).last("the training step") == ""
