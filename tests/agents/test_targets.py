import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents.targets import td0


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_td0_is_reward_plus_discounted_value_of_the_successor(gamma):
    generator = np.random.default_rng(0)
    reward, value = generator.normal(size=(2, 4, 3)).astype(np.float32)
    discount = generator.integers(0, 2, size=(4, 3)).astype(np.float32)
    target = td0(jnp.asarray(reward), jnp.asarray(discount), jnp.asarray(value), gamma)
    expected = np.where(discount == 0, reward, reward + gamma * value)
    np.testing.assert_allclose(target, expected, rtol=1e-6)


@pytest.mark.parametrize("shapes", [((3,), (3,), (3, 1)), ((3,), (), (3,)), ((1,), (3,), (3,))])
def test_shapes_that_would_broadcast_are_refused(shapes):
    with pytest.raises(AssertionError):
        td0(*(jnp.ones(shape) for shape in shapes), 0.9)
