"""What an estimate costs, read off its jaxpr: evaluations of the model, their pullbacks, FLOPs.

Neither of JAX's own counts will do: XLA's cost analysis counts the body of a loop once, however
often it runs, and `jax.experimental.roofline` counts a `scan` once, too.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive
from jax.interpreters import batching, mlir
from jax.interpreters.partial_eval import dce_jaxpr

from mbpo_jax.laboratory.problems.problem import Problem
from mbpo_jax.types import PyTree


class Cost(NamedTuple):
    """What a function costs.

    Attributes:
      model_evaluations: of a counted problem, one for every row of a batch.
      vjps: vector-Jacobian products with the model, counted likewise.
      flops: floating-point operations; see `cost`.
    """

    model_evaluations: int = 0
    vjps: int = 0
    flops: int = 0


def cost(fn: Callable, *arguments: PyTree) -> Cost:
    """Count what a function does, without running it.

    What its results do not depend on is left out. A loop counts as often as it runs, or once if
    that is not known (`while`); of the branches of a `cond`, the most of each count is taken. An
    operation with floating-point operands counts as one FLOP for each element of the largest of
    them, a transcendental function like a sum; a matrix product of m x k and k x n counts as
    `2 m n k`; what only moves or converts numbers is free, and so are integers and random bits.

    Args:
      fn: of JAX arrays; with a `counted` problem inside, or there is no model to be counted.
      *arguments: its arguments, or their shapes (`jax.ShapeDtypeStruct`).
    """
    jaxpr = jax.make_jaxpr(fn)(*arguments).jaxpr
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return jaxpr_cost(live)


def counted(problem: Problem) -> Problem:
    """Return the same problem, whose model `cost` finds.

    The model is the law of a step's outcome, or, where nothing is random, the step itself. Marks
    do not change numbers, but forward-mode derivatives are lost.
    """
    if problem.outcome is not None:
        return problem._replace(outcome=marked(problem.outcome))
    return problem._replace(advance=marked(problem.advance))


def marked(model: Callable) -> Callable:
    """Return a function of trees with marks on its evaluations and on its pullbacks."""

    @jax.custom_vjp
    def evaluate(*arguments: PyTree) -> PyTree:
        return model(*mark("model_evaluations", arguments))

    def forward(*arguments: PyTree):
        out, pull = jax.vjp(model, *mark("model_evaluations", arguments))
        return out, (arguments, pull)

    def backward(residual: tuple, cotangent: PyTree) -> tuple:
        # The arguments are marked, too: they tell the rows where all rows share a cotangent.
        arguments, pull = residual
        return pull(mark("vjps", (cotangent, arguments))[0])

    evaluate.defvjp(forward, backward)
    return evaluate


mark_p = Primitive("mark")
"""The identity on several arrays; `rows` says how many times `vmap` has repeated it."""
mark_p.multiple_results = True
mark_p.def_impl(lambda *arrays, **_: arrays)
mark_p.def_abstract_eval(lambda *arrays, **_: arrays)
mlir.register_lowering(mark_p, lambda ctx, *arrays, **_: arrays)


def _batch_mark(arrays: tuple, axes: tuple, *, count: str, rows: int):
    size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)
    return mark_p.bind(*arrays, count=count, rows=rows * size), axes


batching.primitive_batchers[mark_p] = _batch_mark


def mark(count: str, tree: PyTree) -> PyTree:
    """Return a tree whose floating-point leaves have passed a mark that adds to a count."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, x in enumerate(leaves) if is_floating(x)]
    passed = mark_p.bind(*(leaves[i] for i in places), count=count, rows=1)
    for i, x in zip(places, passed, strict=True):
        leaves[i] = x
    return structure.unflatten(leaves)


def is_floating(x: Any) -> bool:
    """Return whether an array, or the type of one, holds floating-point numbers."""
    return jnp.issubdtype(x.dtype, jnp.floating)


FREE = {
    "bitcast_convert_type",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "iota",
    "optimization_barrier",
    "pad",
    "reshape",
    "rev",
    "scatter",
    "slice",
    "split",
    "squeeze",
    "stack",
    "stop_gradient",
    "tile",
    "transpose",
    "unstack",
}
"""Primitives that move or convert numbers."""


def jaxpr_cost(jaxpr: Jaxpr) -> Cost:
    """Return the sum over the equations of a jaxpr."""
    return added(equation_cost(equation) for equation in jaxpr.eqns)


def equation_cost(equation: JaxprEqn) -> Cost:
    """Return what one equation costs, with all that it calls."""
    name, params = equation.primitive.name, equation.params
    if equation.primitive is mark_p:
        return Cost(**{params["count"]: params["rows"]})
    if name == "cond":
        branches = [jaxpr_cost(branch) for branch in called(params)]
        return Cost(*(max(counts) for counts in zip(*branches, strict=True)))
    if name.startswith("scatter"):
        # Their own little jaxpr says how two numbers are added.
        _, _, updates = abstract_values(equation.invars)
        return Cost(flops=0 if name in FREE else updates.size)
    inner = list(called(params))
    if inner:
        once = added(jaxpr_cost(jaxpr) for jaxpr in inner)
        return Cost(*(params["length"] * count for count in once)) if name == "scan" else once
    return Cost(flops=flops(equation))


def called(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Yield the jaxprs among an equation's parameters."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def abstract_values(variables: Iterable[Any]) -> list[Any]:
    """Return the abstract values of a jaxpr's variables: their shapes and types of number."""
    return [x.aval for x in variables]


def flops(equation: JaxprEqn) -> int:
    """Return the floating-point operations of an equation that calls no other."""
    name, operands = equation.primitive.name, abstract_values(equation.invars)
    if name in FREE or not any(hasattr(x, "dtype") and is_floating(x) for x in operands):
        return 0
    results = abstract_values(equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * results[0].size * math.prod(operands[0].shape[i] for i in contracted)
    # Elementwise operations have results as large as their operands, reductions smaller ones.
    return max(x.size for x in (*operands, *results))


def added(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    return Cost(*(sum(counts) for counts in zip(Cost(), *costs, strict=True)))
