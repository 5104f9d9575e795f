"""The ensemble's equations in closed form; linear members make its predictions one, too."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax.config import EnsembleConfig
from mbpo_jax.models.ensemble import (
    Ensemble,
    EnsembleState,
    bound_penalty,
    gaussian_nll,
    make_ensemble,
    select_members,
    soft_clamp,
    weight_decay,
)
from mbpo_jax.nets import networks
from mbpo_jax.nets.normalizer import Scaler
from mbpo_jax.types import EnvSpec, Transition

SPEC = EnvSpec("test", 2, 1, episode_length=10, action_repeat=1, dt=0.1)
NUM_TARGETS = 3
NUM_MEMBERS = 4


def linear(learned_termination: bool = False, **options) -> Ensemble:
    """Make an ensemble without hidden layers: `outputs = x @ kernel + bias`."""
    config = EnsembleConfig(num_members=NUM_MEMBERS, num_elites=2, hidden_sizes=(), **options)
    return make_ensemble(SPEC, config, optax.adam(1e-3), learned_termination=learned_termination)


def scaled_state(key: jax.Array, ensemble: Ensemble) -> EnsembleState:
    """Initialise an ensemble and give it scalers and bounds that change everything."""
    state = jax.jit(ensemble.init)(key)
    params = state.params._replace(
        min_log_variance=jnp.asarray([-3.0, -2.0, -1.0]),
        max_log_variance=jnp.asarray([0.0, 1.0, 2.0]),
    )
    return state._replace(
        params=params,
        input_scaler=Scaler(jnp.asarray([1.0, -2.0, 3.0]), jnp.asarray([2.0, 0.5, 4.0])),
        target_scaler=Scaler(jnp.asarray([5.0, -1.0, 0.5]), jnp.asarray([10.0, 0.1, 3.0])),
    )


def clamped(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    x = high - np.logaddexp(0.0, high - x)
    return low + np.logaddexp(0.0, x - low)


def test_soft_clamp_equals_numpy_and_stays_within_its_bounds():
    x = np.concatenate([np.linspace(-30.0, 30.0, 121), [-1e4, 1e4]])
    low, high = -10.0, 0.5
    y = np.asarray(soft_clamp(jnp.float32(x), jnp.float32(low), jnp.float32(high)))
    np.testing.assert_allclose(y, clamped(x, low, high), rtol=1e-5, atol=1e-6)
    # Bounding from below second lifts the upper limit by log(1 + exp(low - high)).
    assert np.all((y >= low) & (y <= high + np.log1p(np.exp(low - high)) + 1e-6))
    assert np.all(np.diff(y[:121]) >= 0.0)
    np.testing.assert_allclose(y[np.abs(x + 5.0) < 1.0], x[np.abs(x + 5.0) < 1.0], atol=0.02)


@pytest.mark.parametrize(("low", "high"), [(-10.0, 0.5), (-1.0, 1.0), (-30.0, 30.0)])
def test_soft_clamp_has_the_slopes_of_two_softplus(low, high):
    def nested(x, low, high):
        x = high - jax.nn.softplus(high - x)
        return low + jax.nn.softplus(x - low)

    def slopes(fn):
        return jax.vmap(jax.grad(fn, argnums=(0, 1, 2)), in_axes=(0, None, None))

    x = jnp.linspace(low - 20.0, high + 20.0, 97)
    arguments = x, jnp.float32(low), jnp.float32(high)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        slopes(soft_clamp)(*arguments),
        slopes(nested)(*arguments),
    )


def test_gaussian_nll_is_twice_the_negative_log_likelihood_without_its_constant():
    rng = np.random.default_rng(0)
    mean, log_variance, target = rng.normal(size=(3, 100))
    variance = np.exp(log_variance)
    density = np.exp(-((target - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    nll = gaussian_nll(*map(jnp.float32, (mean, log_variance, target)))
    np.testing.assert_allclose(
        nll, -2.0 * np.log(density) - np.log(2 * np.pi), rtol=1e-4, atol=1e-5
    )


def test_gaussian_nll_is_least_at_the_squared_error():
    mean, target = jnp.float32(1.0), jnp.float32(1.5)
    slope = jax.grad(gaussian_nll, argnums=1)(mean, jnp.log(jnp.square(mean - target)), target)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_weight_decay_is_half_the_squared_norm_by_layer():
    kernels = [jnp.full((7, 2, 3), 2.0), jnp.full((7, 3, 1), -1.0)]
    expected = 1e-3 * 0.5 * (7 * 2 * 3 * 4.0) + 1e-1 * 0.5 * (7 * 3 * 1.0)
    np.testing.assert_allclose(weight_decay(kernels, (1e-3, 1e-1)), expected, rtol=1e-6)


def test_weight_decay_needs_a_value_for_each_layer():
    with pytest.raises(ValueError, match="zip"):
        weight_decay([jnp.ones((2, 2))], (1.0, 2.0))


def test_bound_penalty_pulls_the_bounds_together():
    low, high = jnp.asarray([-10.0, -9.0]), jnp.asarray([0.5, 1.0])
    value, (raise_low, raise_high) = jax.value_and_grad(bound_penalty, (0, 1))(low, high)
    np.testing.assert_allclose(value, 20.5)
    np.testing.assert_array_equal(raise_low, [-1.0, -1.0])
    np.testing.assert_array_equal(raise_high, [1.0, 1.0])


@pytest.mark.parametrize("bounds", ["learned", "fixed"])
def test_only_learned_bounds_receive_a_gradient(key, bounds):
    ensemble = linear(bounds=bounds)
    params = jax.jit(ensemble.init)(key).params

    def loss(params):
        penalty = bound_penalty(*ensemble.bounds(params))
        return penalty + jnp.sum(ensemble.outputs(params, jnp.ones((4, 5, 3))).log_variance)

    gradient = jax.jit(jax.grad(loss))(params)
    for slope in (gradient.min_log_variance, gradient.max_log_variance):
        assert np.all((slope != 0.0) == (bounds == "learned"))
    assert np.any(networks.kernels(gradient.members)[0] != 0.0)


def test_a_new_ensemble(key):
    ensemble = linear(min_log_variance=-7.0, max_log_variance=1.5)
    state = jax.jit(ensemble.init)(key)
    np.testing.assert_array_equal(state.params.min_log_variance, [-7.0] * NUM_TARGETS)
    np.testing.assert_array_equal(state.params.max_log_variance, [1.5] * NUM_TARGETS)
    np.testing.assert_array_equal(state.elites, [0, 1])
    (kernel,) = networks.kernels(state.params.members)
    assert kernel.shape == (NUM_MEMBERS, 3, 2 * NUM_TARGETS)
    assert np.abs(kernel).max() <= 2.0 * 0.5 / np.sqrt(3.0)
    assert np.all(np.std(kernel, axis=0) > 0.0), "members start differently"
    for scaler in (state.input_scaler, state.target_scaler):
        assert np.all(scaler.mean == 0.0)
        assert np.all(scaler.std == 1.0)


@pytest.mark.parametrize("target", ["delta", "absolute"])
def test_predictions_are_in_the_units_of_the_environment(key, target):
    ensemble = linear(target=target)
    init_key, observation_key, action_key, bias_key = jax.random.split(key, 4)
    state = scaled_state(init_key, ensemble)
    layer = state.params.members["params"]["layer_0"]
    layer["bias"] = jax.random.normal(bias_key, layer["bias"].shape)
    observation = jax.random.normal(observation_key, (NUM_MEMBERS, 5, 2))
    action = jax.random.normal(action_key, (NUM_MEMBERS, 5, 1))

    outcome = jax.jit(ensemble.predict)(state, observation, action)

    x = np.concatenate([observation, action], axis=-1)
    x = (x - np.asarray([1.0, -2.0, 3.0])) / np.asarray([2.0, 0.5, 4.0])
    raw = np.einsum("ebi,eid->ebd", x, layer["kernel"]) + np.asarray(layer["bias"])[:, None]
    mean = raw[..., :3] * np.asarray([10.0, 0.1, 3.0]) + np.asarray([5.0, -1.0, 0.5])
    if target == "delta":
        mean[..., 1:] += observation
    log_variance = clamped(raw[..., 3:], np.asarray([-3, -2, -1]), np.asarray([0, 1, 2]))
    std = np.exp(0.5 * log_variance) * np.asarray([10.0, 0.1, 3.0])
    np.testing.assert_allclose(outcome.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outcome.std, std, rtol=1e-4)
    assert outcome.termination_logit is None


@pytest.mark.parametrize("target", ["delta", "absolute"])
def test_targets_are_what_the_predicted_mean_estimates(target):
    transition = Transition(
        observation=jnp.asarray([[1.0, 2.0]]),
        action=jnp.asarray([[0.5]]),
        reward=jnp.asarray([7.0]),
        discount=jnp.asarray([1.0]),
        next_observation=jnp.asarray([[1.5, 1.0]]),
    )
    ensemble = linear(target=target)
    following = [0.5, -1.0] if target == "delta" else [1.5, 1.0]
    np.testing.assert_array_equal(ensemble.targets(transition), [[7.0, *following]])
    inputs = ensemble.inputs(transition.observation, transition.action)
    np.testing.assert_array_equal(inputs, [[1.0, 2.0, 0.5]])


def test_the_termination_head_is_one_more_output(key):
    ensemble = linear(learned_termination=True)
    init_key, x_key = jax.random.split(key)
    params = jax.jit(ensemble.init)(init_key).params
    (kernel,) = networks.kernels(params.members)
    assert kernel.shape == (NUM_MEMBERS, 3, 2 * NUM_TARGETS + 1)
    x = jax.random.normal(x_key, (NUM_MEMBERS, 5, 3))
    out = jax.jit(ensemble.outputs)(params, x)
    expected = np.einsum("ebi,eid->ebd", x, kernel)
    np.testing.assert_allclose(out.termination_logit, expected[..., -1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.mean, expected[..., :NUM_TARGETS], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norm_makes_members_blind_to_the_scale_of_a_hidden_kernel(key, layer_norm):
    config = EnsembleConfig(num_members=2, num_elites=1, hidden_sizes=(16,), layer_norm=layer_norm)
    ensemble = make_ensemble(SPEC, config, optax.adam(1e-3), learned_termination=False)
    params = jax.jit(ensemble.init)(key).params
    x = jnp.linspace(-1.0, 1.0, 2 * 5 * 3).reshape(2, 5, 3)
    outputs = jax.jit(ensemble.outputs)
    before = outputs(params, x).mean
    params.members["params"]["layer_0"]["kernel"] *= 3.0
    unchanged = np.allclose(outputs(params, x).mean, before, atol=1e-3)
    assert unchanged == layer_norm
    assert ("norm_0" in params.members["params"]) == layer_norm


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_spectral_norm_makes_members_blind_to_the_length_of_a_kernel_above_one(key, spectral_norm):
    config = EnsembleConfig(
        num_members=2, num_elites=1, hidden_sizes=(16,), spectral_norm=spectral_norm
    )
    ensemble = make_ensemble(SPEC, config, optax.adam(1e-3), learned_termination=False)
    params = jax.jit(ensemble.init)(key).params
    layer = params.members["params"]["layer_0"]
    layer["kernel"] *= 2.0 / np.linalg.norm(layer["kernel"], 2, axis=(1, 2), keepdims=True)
    x = jnp.linspace(-1.0, 1.0, 2 * 5 * 3).reshape(2, 5, 3)
    outputs = jax.jit(ensemble.outputs)
    before = outputs(params, x).mean
    layer["kernel"] *= 3.0
    assert np.allclose(outputs(params, x).mean, before, atol=1e-4) == spectral_norm


def test_selected_members_predict_as_they_did(key):
    ensemble = linear()
    init_key, x_key = jax.random.split(key)
    state = scaled_state(init_key, ensemble)
    row = jax.random.normal(x_key, (1, 5, 3))
    x = jnp.broadcast_to(row, (NUM_MEMBERS, 5, 3))
    predict = jax.jit(ensemble.predict)
    everyone = predict(state, x[..., :2], x[..., 2:])
    members = np.asarray([2, 0, 2])
    selected = select_members(state, jnp.asarray(members))
    some = predict(selected, x[members, :, :2], x[members, :, 2:])
    np.testing.assert_allclose(some.mean, everyone.mean[members], rtol=1e-6)
    np.testing.assert_allclose(some.std, everyone.std[members], rtol=1e-6)


def test_homoscedastic_noise_is_one_number_for_each_member_and_target(key):
    ensemble = linear(noise="homoscedastic", bounds="fixed")
    state = jax.jit(ensemble.init)(key)
    numbers = jnp.linspace(-4.0, 0.0, NUM_MEMBERS * NUM_TARGETS).reshape(NUM_MEMBERS, NUM_TARGETS)
    members = {**state.params.members, "noise": {"log_variance": numbers}}
    params = state.params._replace(members=members)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_MEMBERS, 5, 3)), jnp.float32)
    out = ensemble.outputs(params, x)
    assert out.mean.shape == out.log_variance.shape == (NUM_MEMBERS, 5, NUM_TARGETS)
    expected = clamped(np.asarray(numbers), -10.0, 0.5)[:, None]
    np.testing.assert_allclose(out.log_variance, np.repeat(expected, 5, axis=1), rtol=1e-4)
    # Whoever is chosen takes its noise along, and training moves it.
    chosen = select_members(state._replace(params=params), jnp.asarray([2]))
    np.testing.assert_array_equal(chosen.params.members["noise"]["log_variance"], numbers[2:3])
    gradient = jax.grad(lambda p: jnp.sum(gaussian_nll(*ensemble.outputs(p, x)[:2], 0.0)))(params)
    assert np.all(gradient.members["noise"]["log_variance"] != 0.0)


def test_dropout_leaves_units_out_in_training_alone(key):
    """One hidden layer's output is linear in its units, so its mean over draws is that without."""
    config = EnsembleConfig(num_members=2, num_elites=2, hidden_sizes=(16,), dropout=0.25)
    ensemble = make_ensemble(SPEC, config, optax.adam(1e-3), learned_termination=False)
    params = jax.jit(ensemble.init)(key).params
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 3)), jnp.float32)
    whole = ensemble.outputs(params, x).mean
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = jax.vmap(lambda key: ensemble.outputs(params, x, key).mean)(keys)
    assert len(np.unique(draws[:, 0, 0, 0])) > 1000
    standard_error = np.std(draws, axis=0) / np.sqrt(len(keys))
    np.testing.assert_array_less(np.abs(np.mean(draws, axis=0) - whole), 4.5 * standard_error)
    # A quarter is left out: variance p / (1 - p) of each unit's part of the output.
    layers = params.members["params"]
    hidden = jax.nn.swish(x @ layers["layer_0"]["kernel"] + layers["layer_0"]["bias"][:, None])
    parts = hidden[:, 0, :, None] * layers["layer_1"]["kernel"][..., :NUM_TARGETS]
    variance = np.sum(np.square(parts), axis=1) * 0.25 / 0.75
    np.testing.assert_allclose(np.var(draws[:, :, 0], axis=0), variance, rtol=0.15)
