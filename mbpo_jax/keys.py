"""Random keys where JAX's own tools do not suffice."""

from collections.abc import Callable

import jax

from mbpo_jax.types import PyTree


def cond_with_key(
    condition: jax.Array,
    key: jax.Array,
    if_true: Callable[[jax.Array], PyTree],
    if_false: Callable[[], PyTree],
) -> PyTree:
    """Return `if_true(key)` or `if_false()`, of which only the one that is needed is computed.

    Under `vmap` both are, as `cond` is a select then, also between its operands; JAX's check for
    reused keys takes that for a second use of a key. So the key goes in as its words.

    Args:
      condition: bool `[]`.
      key: a key, used up.
      if_true: see above.
      if_false: see above.
    """
    words, kind = jax.random.key_data(key), jax.random.key_impl(key)
    return jax.lax.cond(
        condition, lambda: if_true(jax.random.wrap_key_data(words, impl=kind)), if_false
    )
