"""Options of XLA that this one knows, and programs that run for less than they would compile."""

import functools
from collections.abc import Callable

import jax


def run_once(function: Callable, static: tuple[int, ...] = ()) -> Callable:
    """Compile a function that is run for less time than its code would take to optimise.

    Drawing normal numbers in float64 compiles in a tenth of the time on a CPU, and then takes twice
    as long. An accelerator has no such choice.

    Args:
      function: of arrays.
      static: numbers of those of its arguments that are none.
    """
    options = known_options(
        xla_backend_optimization_level="0",
        xla_llvm_disable_expensive_passes=True,
        xla_cpu_use_fusion_emitters=False,
    )
    return jax.jit(function, static_argnums=static, compiler_options=options)


def known_options(**wanted: str | bool) -> dict[str, str | bool]:
    """Return those options for a CPU that XLA takes; none on an accelerator.

    Their names are no part of its interface.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in wanted.items() if knows_option(name, value)}


@functools.cache
def knows_option(name: str, value: str | bool) -> bool:
    """Return whether XLA takes this compiler option."""
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
