"""From a policy's jaxpr to an ONNX graph; the only file that knows onnx.

The policy is traced for one observation `[O]`. What does not depend on it is computed while the
graph is made and kept as constants. The rest gets a leading batch axis, so that all other sizes are
known and the batch is free. Primitives of JAX that no policy here needs are refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from mbpo_jax.errors import ConfigError

OPSET = 18
IR_VERSION = 8
"""The version of the format that belongs to the opset. By default, the onnx package writes its
newest, which runtimes that are a little older refuse."""
INPUT, OUTPUT = "observation", "action"

Value = Any
"""An array that does not depend on the observation, or the name of a tensor of the graph, whose
shape is that in the jaxpr behind the batch axis."""


class Graph:
    """An ONNX graph while it grows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        """Add an array and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, values: int | Sequence[int]) -> str:
        """Add numbers that ONNX takes as int64, such as sizes and axes."""
        return self.constant(np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and return the name of its output, or a list of them if there are several."""
        name = f"{operator}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        node = onnx.helper.make_node(operator, inputs, names, name, **attributes)
        self.nodes.append(node)
        return name if outputs == 1 else names

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Give a tensor another shape behind its batch axis."""
        return self.add("Reshape", name, self.integers([-1, *shape]))

    def batched(self, value: Value) -> str:
        """Return the name of a value, an array repeated for each observation."""
        if isinstance(value, str):
            return value
        batch = self.add("Shape", INPUT, start=0, end=1)
        shape = self.add("Concat", batch, self.integers(np.shape(value)), axis=0)
        return self.add("Expand", self.constant(value), shape)


def make_model(policy: Callable[[jax.Array], jax.Array], observation_size: int) -> onnx.ModelProto:
    """Translate a policy.

    Args:
      policy: `observation [O] float32 -> action [A]`.
      observation_size: O.

    Returns:
      The model `observation [batch, O] float32 -> action [batch, A]`.

    Raises:
      ConfigError: the policy uses a primitive that is not known here.
    """
    closed = jax.make_jaxpr(policy)(jax.ShapeDtypeStruct((observation_size,), np.float32))
    graph = Graph()
    (action,) = translate(graph, closed.jaxpr, closed.consts, [INPUT])
    graph.add("Identity", graph.batched(action))
    graph.nodes[-1].output[0] = OUTPUT
    nodes, constants = used(graph)
    (aval,) = closed.out_avals
    ends = [
        onnx.helper.make_tensor_value_info(name, tensor_type(dtype), ["batch", *shape])
        for name, dtype, shape in (
            (INPUT, np.float32, (observation_size,)),
            (OUTPUT, aval.dtype, aval.shape),
        )
    ]
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "policy", ends[:1], ends[1:], constants),
        producer_name="mbpo_jax",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )


def translate(
    graph: Graph, jaxpr: Jaxpr, consts: Sequence[Value], inputs: Sequence[Value]
) -> list[Value]:
    """Add what a jaxpr computes to a graph and return its outputs.

    Raises:
      ConfigError: it has a primitive that is not known here.
    """
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def read(atom: Any) -> Value:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if (body := eqn.params.get(CALLS.get(name, ""))) is not None:
            results = translate(graph, body.jaxpr, body.consts, values)
        elif not any(isinstance(value, str) for value in values):
            results = eqn.primitive.bind(*values, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
        elif name in ELEMENTWISE:
            results = [ELEMENTWISE[name](graph, *aligned(graph, eqn, values))]
        elif name in RULES:
            result = RULES[name](graph, eqn, *values)
            results = result if isinstance(result, list) else [result]
        else:
            raise ConfigError(
                f"the policy uses JAX's primitive {name}, for which there is no translation to "
                "ONNX here; use the format stablehlo, which takes every policy"
            )
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def used(graph: Graph) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes and constants that the action depends on: of a Gaussian, not its width."""
    nodes, names = [], {OUTPUT}
    for node in reversed(graph.nodes):
        if not names.isdisjoint(node.output):
            nodes.append(node)
            names.update(node.input)
    return nodes[::-1], [constant for constant in graph.constants if constant.name in names]


CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that call a function, and the parameter that holds it. Derivatives do not leave."""


def aligned(graph: Graph, eqn: JaxprEqn, values: Sequence[Value]) -> list[str]:
    """Return the names of an elementwise operation's operands, with axes for ONNX to broadcast.

    In a jaxpr, the operands have one rank, or are scalars.
    """
    rank = len(shape_of(eqn.outvars[0]))

    def with_rank(value: Value, shape: tuple[int, ...]) -> str:
        if not isinstance(value, str):
            return graph.constant(value)
        return value if len(shape) == rank else graph.reshape(value, [1] * rank)

    return [with_rank(v, shape_of(atom)) for v, atom in zip(values, eqn.invars, strict=True)]


def shape_of(atom: Any) -> tuple[int, ...]:
    """Return the shape of a variable or literal, for one observation."""
    return atom.aval.shape


def tensor_type(dtype: Any) -> int:
    """Return ONNX's number of an element type."""
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def simple(operator: str) -> Callable[..., str]:
    """Return the translation to one operator."""
    return lambda graph, *inputs: graph.add(operator, *inputs)


def one(graph: Graph) -> str:
    """Return a float32 one."""
    return graph.constant(np.float32(1.0))


# `expm1` and its like round more than JAX's; the check of the written file tells if that matters.
ELEMENTWISE: dict[str, Callable[..., str]] = {
    name: simple(operator)
    for name, operator in {
        "abs": "Abs",
        "add": "Add",
        "and": "And",
        "ceil": "Ceil",
        "copy": "Identity",
        "cos": "Cos",
        "div": "Div",
        "eq": "Equal",
        "erf": "Erf",
        "exp": "Exp",
        "floor": "Floor",
        "ge": "GreaterOrEqual",
        "gt": "Greater",
        "le": "LessOrEqual",
        "log": "Log",
        "logistic": "Sigmoid",
        "lt": "Less",
        "max": "Max",
        "min": "Min",
        "mul": "Mul",
        "neg": "Neg",
        "not": "Not",
        "or": "Or",
        "pow": "Pow",
        "sign": "Sign",
        "sin": "Sin",
        "sqrt": "Sqrt",
        "stop_gradient": "Identity",
        "sub": "Sub",
        "tanh": "Tanh",
    }.items()
} | {
    "clamp": lambda graph, low, x, high: graph.add("Min", graph.add("Max", x, low), high),
    "erfc": lambda graph, x: graph.add("Sub", one(graph), graph.add("Erf", x)),
    "expm1": lambda graph, x: graph.add("Sub", graph.add("Exp", x), one(graph)),
    "log1p": lambda graph, x: graph.add("Log", graph.add("Add", x, one(graph))),
    "ne": lambda graph, x, y: graph.add("Not", graph.add("Equal", x, y)),
    "rsqrt": lambda graph, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "select_n": lambda graph, which, x, y: graph.add("Where", which, y, x),
    "square": lambda graph, x: graph.add("Mul", x, x),
}


def broadcast_in_dim(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Put axes of length one where JAX puts new ones, then repeat."""
    shape, axes = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    sizes = shape_of(eqn.invars[0])
    with_ones = [sizes[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    x = graph.reshape(x, with_ones)
    return x if with_ones == list(shape) else graph.add("Expand", x, graph.integers([1, *shape]))


def concatenate(graph: Graph, eqn: JaxprEqn, *values: Value) -> str:
    """Join along an axis."""
    return graph.add("Concat", *map(graph.batched, values), axis=eqn.params["dimension"] + 1)


def convert_element_type(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Change the element type."""
    return graph.add("Cast", x, to=tensor_type(eqn.params["new_dtype"]))


def dot_general(graph: Graph, eqn: JaxprEqn, x: Value, y: Value) -> str:
    """Multiply by a kernel, or sum any products over any axes."""
    (x_sum, y_sum), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    shapes = [shape_of(atom) for atom in eqn.invars]
    if isinstance(x, str) and not isinstance(y, str) and [len(s) for s in shapes] == [1, 2]:
        kernel = np.asarray(y)
        return graph.add("MatMul", x, graph.constant(kernel if y_sum == (0,) else kernel.T))
    # A letter for each axis: the observations', those of both, those summed over, the others.
    letters = iter("abcdefghijklm")
    names: list[dict[int, str]] = [{}, {}]
    for axes in (zip(x_batch, y_batch, strict=True), zip(x_sum, y_sum, strict=True)):
        for i, j in axes:
            names[0][i] = names[1][j] = next(letters)
    for axes, shape in zip(names, shapes, strict=True):
        axes.update({i: next(letters) for i in range(len(shape)) if i not in axes})
    x_free = [names[0][i] for i in range(len(shapes[0])) if i not in (*x_sum, *x_batch)]
    y_free = [names[1][i] for i in range(len(shapes[1])) if i not in (*y_sum, *y_batch)]
    result = "".join(["n", *(names[0][i] for i in x_batch), *x_free, *y_free])
    terms = [
        "n" * isinstance(value, str) + "".join(axes[i] for i in range(len(axes)))
        for axes, value in zip(names, (x, y), strict=True)
    ]
    inputs = [value if isinstance(value, str) else graph.constant(value) for value in (x, y)]
    return graph.add("Einsum", *inputs, equation=f"{','.join(terms)}->{result}")


def dynamic_slice(graph: Graph, eqn: JaxprEqn, table: Value, *starts: Value) -> str:
    """Look up in a table, along one axis, as by `table[index]`."""
    sizes, shape = eqn.params["slice_sizes"], shape_of(eqn.invars[0])
    axes = [axis for axis, start in enumerate(starts) if isinstance(start, str)]
    if isinstance(table, str) or len(axes) != 1 or sizes[axes[0]] != 1:
        raise ConfigError(
            "the policy cuts a piece at a place that depends on the observation, for which there "
            "is no translation to ONNX here; use the format stablehlo, which takes every policy"
        )
    (axis,) = axes
    # The other places are known; 0 stands in for the one that is not.
    here = [0 if isinstance(start, str) else start for start in starts]
    whole = [shape[i] if i == axis else size for i, size in enumerate(sizes)]
    rows = np.moveaxis(np.asarray(jax.lax.dynamic_slice(table, here, whole)), axis, 0)
    index = graph.add("Cast", starts[axis], to=onnx.TensorProto.INT64)
    # JAX moves a place that lies outside to the edge.
    index = graph.add("Max", index, graph.integers(0))
    index = graph.add("Min", index, graph.integers(shape[axis] - 1))
    return graph.reshape(graph.add("Gather", graph.constant(rows), index, axis=0), sizes)


def integer_pow(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Raise to a power that is part of the primitive."""
    # ONNX takes an exponent of another type than the base's.
    return graph.add("Pow", x, graph.integers(eqn.params["y"]))


def new_shape(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Give the output its shape, whatever made it."""
    return graph.reshape(x, shape_of(eqn.outvars[0]))


def slice_(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Take a piece at a known place."""
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(starts)
    axes = range(1, len(starts) + 1)
    return graph.add("Slice", x, *map(graph.integers, (starts, ends, axes, steps)))


def split(graph: Graph, eqn: JaxprEqn, x: str) -> list[str]:
    """Cut into pieces along an axis."""
    sizes = eqn.params["sizes"]
    names = graph.add(
        "Split", x, graph.integers(sizes), axis=eqn.params["axis"] + 1, outputs=len(sizes)
    )
    return names if isinstance(names, list) else [names]


def transpose(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Permute axes."""
    return graph.add("Transpose", x, perm=[0, *(i + 1 for i in eqn.params["permutation"])])


def argument(operator: str) -> Callable[..., str]:
    """Return the translation to an operator that finds the first best place."""

    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        (axis,) = eqn.params["axes"]
        place = graph.add(operator, x, axis=axis + 1, keepdims=0)
        return graph.add("Cast", place, to=tensor_type(eqn.params["index_dtype"]))

    return rule


def reduction(operator: str) -> Callable[..., str]:
    """Return the translation to an operator that reduces axes."""

    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        axes = graph.integers([axis + 1 for axis in eqn.params["axes"]])
        return graph.add(operator, x, axes, keepdims=0)

    return rule


RULES: dict[str, Callable[..., str | list[str]]] = {
    "argmax": argument("ArgMax"),
    "argmin": argument("ArgMin"),
    "broadcast_in_dim": broadcast_in_dim,
    "concatenate": concatenate,
    "convert_element_type": convert_element_type,
    "dot_general": dot_general,
    "dynamic_slice": dynamic_slice,
    "integer_pow": integer_pow,
    "reduce_max": reduction("ReduceMax"),
    "reduce_min": reduction("ReduceMin"),
    "reduce_sum": reduction("ReduceSum"),
    "reshape": new_shape,
    "slice": slice_,
    "split": split,
    "squeeze": new_shape,
    "transpose": transpose,
}
