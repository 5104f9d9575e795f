"""Multilayer perceptrons as pairs of pure functions; the only file that knows flax."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from mbpo_jax.types import PyTree

Initializer = Callable[..., jax.Array]

glorot_uniform: Initializer = nn.initializers.glorot_uniform()


def truncated_normal_fan_in(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
) -> jax.Array:
    """Draw a kernel from a normal of std 1 / (2 sqrt(fan_in)), redrawn beyond two std.

    Source: the initialisation of the PETS and MBPO ensembles (arXiv:1805.12114, arXiv:1906.08253).
    """
    std = 0.5 / jnp.sqrt(shape[0])
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


class Network(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: `key -> params`.
      apply: `(params, input [..., I]) -> output [..., D]`.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, jax.Array], jax.Array]


class _MLP(nn.Module):
    hidden_sizes: Sequence[int]
    output_size: int
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: Initializer
    layer_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, size in enumerate(self.hidden_sizes):
            x = nn.Dense(size, kernel_init=self.kernel_init, name=f"layer_{i}")(x)
            if self.layer_norm:
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            x = self.activation(x)
        last = len(self.hidden_sizes)
        return nn.Dense(self.output_size, kernel_init=self.kernel_init, name=f"layer_{last}")(x)


def make_mlp(
    input_size: int,
    hidden_sizes: Sequence[int],
    output_size: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    kernel_init: Initializer = glorot_uniform,
    layer_norm: bool = False,
) -> Network:
    """Build a multilayer perceptron with a linear output layer and zero initial biases."""
    module = _MLP(hidden_sizes, output_size, activation, kernel_init, layer_norm)
    # Flax's own type allows for updated collections beside the output; there are none here.
    apply = cast(Callable[[PyTree, jax.Array], jax.Array], module.apply)
    return Network(lambda key: module.init(key, jnp.zeros((1, input_size))), apply)


def ensemble_of(network: Network, num_members: int, *, shared_input: bool) -> Network:
    """Stack independently initialised copies of a network on a leading axis `E`.

    Args:
      network: the member.
      num_members: E.
      shared_input: whether all members see the same input `[..., I]`, or each its own,
        `[E, ..., I]`.
    """
    return Network(
        init=lambda key: jax.vmap(network.init)(jax.random.split(key, num_members)),
        apply=jax.vmap(network.apply, in_axes=(0, None if shared_input else 0)),
    )


def kernels(params: PyTree) -> list[jax.Array]:
    """Return the kernels of a perceptron, first layer to last, with any leading axes."""
    layers = params["params"]
    names = [name for name in layers if name.startswith("layer_")]
    return [layers[name]["kernel"] for name in sorted(names, key=lambda n: int(n[6:]))]
