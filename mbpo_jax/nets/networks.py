"""Multilayer perceptrons as pairs of pure functions; the only file that knows flax."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from mbpo_jax.types import PyTree

Initializer = Callable[..., jax.Array]

POWER_ITERATIONS = 10
POWER_STARTS = 4
"""Of the estimate of a kernel's largest singular value. For random kernels it is low by 1 % at the
mean, and by 3.5 % for one in a hundred; from a single start, one in a hundred would be by 8 %."""

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
      apply: `(params, input [..., I], key=None) -> output [..., D]`; with a key, which is used up,
        units are left out as in training.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[..., jax.Array]


class _MLP(nn.Module):
    hidden_sizes: Sequence[int]
    output_size: int
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: Initializer
    layer_norm: bool
    dropout: float
    zero_output: bool

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        for i, size in enumerate(self.hidden_sizes):
            x = nn.Dense(size, kernel_init=self.kernel_init, name=f"layer_{i}")(x)
            if self.layer_norm:
                x = nn.LayerNorm(name=f"norm_{i}")(x)
            x = self.activation(x)
            if self.dropout and key is not None:
                drop = nn.Dropout(self.dropout, deterministic=False)
                x = drop(x, rng=jax.random.fold_in(key, i))
        last = len(self.hidden_sizes)
        kernel_init = nn.initializers.zeros if self.zero_output else self.kernel_init
        return nn.Dense(self.output_size, kernel_init=kernel_init, name=f"layer_{last}")(x)


def make_mlp(
    input_size: int,
    hidden_sizes: Sequence[int],
    output_size: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    kernel_init: Initializer = glorot_uniform,
    layer_norm: bool = False,
    spectral_norm: bool = False,
    dropout: float = 0.0,
    zero_output: bool = False,
) -> Network:
    """Build a multilayer perceptron with a linear output layer and zero initial biases.

    With `zero_output` the weights of the last layer are zero at first, too.
    """
    module = _MLP(
        hidden_sizes, output_size, activation, kernel_init, layer_norm, dropout, zero_output
    )
    # Flax's own type allows for updated collections beside the output; there are none here.
    plain = cast(Callable[..., jax.Array], module.apply)

    def apply(params: PyTree, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return plain(spectrally_normalised(params) if spectral_norm else params, x, key)

    return Network(lambda key: module.init(key, jnp.zeros((1, input_size))), apply)


def largest_singular_value(kernel: jax.Array) -> jax.Array:
    """Estimate the largest singular value of a kernel `[I, D]` by power iteration.

    The best of a few starts counts; no estimate is above the true value. Its gradient is that of
    `u^T W v` at fixed singular vectors (Miyato et al. 2018, arXiv:1802.05957). There is no vector
    that lives on from one call to the next, so that a network stays a pure function of its
    parameters.
    """
    fixed = jax.lax.stop_gradient(kernel)

    def iterate(_, v: jax.Array) -> jax.Array:
        return unit((v @ fixed.T) @ fixed)

    # Components of all sizes, so that a start is orthogonal to no singular vector but by chance.
    start = jnp.cos(jnp.outer(1.0 + jnp.arange(POWER_STARTS), jnp.arange(kernel.shape[1])))
    v = jax.lax.fori_loop(0, POWER_ITERATIONS, iterate, start)
    v = v[jnp.argmax(jnp.linalg.norm(v @ fixed.T, axis=-1))]
    return jnp.vdot(unit(fixed @ v), kernel @ v)


def unit(x: jax.Array) -> jax.Array:
    """Return vectors `[..., D]` at length 1; where there is no direction, zeros."""
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


def spectrally_normalised(params: PyTree) -> PyTree:
    """Divide every kernel of a perceptron by its largest singular value where that exceeds 1."""

    def normalised(path: tuple, leaf: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return leaf
        return leaf / jnp.maximum(largest_singular_value(leaf), 1.0)

    return jax.tree_util.tree_map_with_path(normalised, params)


def ensemble_of(network: Network, num_members: int) -> Network:
    """Stack independently initialised copies of a network on a leading axis `E`.

    Its input is `[E, ..., I]`, a row for each member; `for_all` makes it from one for all.
    """

    def apply(params: PyTree, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        if key is None:
            return jax.vmap(network.apply)(params, x)
        return jax.vmap(network.apply)(params, x, jax.random.split(key, x.shape[0]))

    return Network(
        init=lambda key: jax.vmap(network.init)(jax.random.split(key, num_members)), apply=apply
    )


def num_members(params: PyTree) -> int:
    """Return how many copies of a network `ensemble_of` has stacked."""
    return jax.tree.leaves(params)[0].shape[0]


def for_all(params: PyTree, x: jax.Array) -> jax.Array:
    """Repeat an input `[..., I]` for the copies that `params` stacks: `[E, ..., I]`.

    A product of many kernels with one input would be a single wide one, around which XLA turns the
    kernels to and fro.
    """
    return jnp.broadcast_to(x, (num_members(params), *x.shape))


def kernels(params: PyTree) -> list[jax.Array]:
    """Return the kernels of a perceptron, first layer to last, with any leading axes."""
    layers = params["params"]
    names = [name for name in layers if name.startswith("layer_")]
    return [layers[name]["kernel"] for name in sorted(names, key=lambda n: int(n[6:]))]
