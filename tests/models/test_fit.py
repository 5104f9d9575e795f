"""The fit against plain re-derivations of the reference, and on a system whose truth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax.models import fit as fitting
from mbpo_jax.models import stopping
from mbpo_jax.models.dataset import Split, draw_member_rows
from mbpo_jax.models.ensemble import Ensemble, EnsembleParams
from mbpo_jax.nets import networks
from mbpo_jax.nets.normalizer import Scaler
from tests.linear_system import (
    NOISE_STD,
    NUM_MEMBERS,
    A,
    B,
    counting_optimizer,
    dataset_of,
    filled,
    fit_config,
    initial,
    linear_system,
    make,
    run_fit,
    steps_of,
)

pytestmark = pytest.mark.smoke

# The whole fit


def test_a_fixed_budget_is_spent_exactly_and_a_fit_starts_from_the_last(key):
    optimizer = counting_optimizer()
    ensemble = make(optimizer)
    config = fit_config(stopping="budget", num_steps=7, cold_factor=3)
    init_key, *fit_keys = jax.random.split(key, 3)
    state, total = initial(init_key, ensemble), 0
    for is_cold, fit_key in zip((True, False), fit_keys, strict=True):
        state, metrics = run_fit(
            fit_key, state, filled(50, 60), ensemble, optimizer, config, is_cold=is_cold
        )
        steps = 21 if is_cold else 7
        total += steps
        assert int(metrics["model/gradient_steps"]) == steps
        # 40 rows are trained on, in batches of 16.
        np.testing.assert_allclose(metrics["model/epochs"], steps * 16 / 40)
        assert list(steps_of(state)) == [total] * NUM_MEMBERS


@pytest.mark.parametrize("bounds", ["learned", "fixed"])
def test_warm_start_keeps_adam_and_fixed_bounds_stay(key, bounds):
    optimizer = optax.adam(1e-4)
    ensemble = make(optimizer, bounds=bounds)
    config = fit_config(stopping="budget", num_steps=5)
    init_key, first_key, second_key = jax.random.split(key, 3)
    start = initial(init_key, ensemble)
    first, _ = run_fit(first_key, start, filled(50, 60), ensemble, optimizer, config)
    second, _ = run_fit(second_key, first, filled(50, 60), ensemble, optimizer, config)
    assert int(second.optimizer[0].count) == 10
    for before, after in ((start, first), (first, second)):
        # Adam moves a parameter by at most lr * (1 - b1) / sqrt(1 - b2) = 3.2 lr a step.
        moves = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), before.params.members, after.params.members
        )
        assert all(0.0 < move < 5 * 3.2e-4 for move in jax.tree.leaves(moves))
        for name in ("min_log_variance", "max_log_variance"):
            moved = getattr(after.params, name) != getattr(before.params, name)
            assert np.all(moved == (bounds == "learned"))


# The loss and one epoch


def random_params(key: jax.Array, ensemble: Ensemble) -> EnsembleParams:
    """Initialise parameters and perturb them, so that none is zero or equal to another one."""
    rng = np.random.default_rng(0)
    params = initial(key, ensemble).params
    return jax.tree.map(lambda x: jnp.float32(x + 0.3 * rng.normal(size=x.shape)), params)


def numpy_forward(params: EnsembleParams, member: int, x: np.ndarray) -> np.ndarray:
    """Apply one member, in float64: dense layers with swish between them."""
    kernels = networks.kernels(params.members)
    for i, kernel in enumerate(kernels):
        bias = params.members["params"][f"layer_{i}"]["bias"]
        x = x @ np.float64(kernel[member]) + np.float64(bias[member])
        if i < len(kernels) - 1:
            x = x / (1.0 + np.exp(-x))
    return x


def numpy_loss(params, dataset, rows, decays, penalty, learned_termination) -> float:
    """Re-derive the reference's loss in float64, member by member."""
    low, high = np.float64(params.min_log_variance), np.float64(params.max_log_variance)
    total = penalty * (high.sum() - low.sum())
    for kernel, decay in zip(networks.kernels(params.members), decays, strict=True):
        total += decay * np.sum(np.float64(kernel) ** 2) / 2.0
    for e in range(NUM_MEMBERS):
        output = numpy_forward(params, e, np.float64(dataset.inputs)[rows[e]])
        mean, log_variance = output[:, :3], output[:, 3:6]
        log_variance = high - np.log1p(np.exp(high - log_variance))
        log_variance = low + np.log1p(np.exp(log_variance - low))
        error = mean - np.float64(dataset.targets)[rows[e]]
        total += np.mean(error**2 * np.exp(-log_variance) + log_variance)
        if learned_termination:
            probability = 1.0 / (1.0 + np.exp(-output[:, 6]))
            terminated = np.asarray(dataset.terminated)[rows[e]] == 1.0
            total -= np.mean(np.log(np.where(terminated, probability, 1.0 - probability)))
    return total


@pytest.mark.parametrize("learned_termination", [False, True])
def test_loss_equals_numpy(key, learned_termination):
    data_key, init_key = jax.random.split(key)
    ensemble = make(optax.adam(1e-3), (8, 6), learned_termination=learned_termination)
    config = fit_config(3, weight_decays=(0.01, 0.1, 1.0))
    params = random_params(init_key, ensemble)
    dataset, *_ = dataset_of(data_key, filled(40, 40), config)
    rows = np.random.default_rng(1).integers(0, 40, (NUM_MEMBERS, 12))
    loss = jax.jit(
        lambda *args: fitting.loss_fn(jax.random.key(0), args[0], ensemble, *args[1:], config, 0.01)
    )
    expected = numpy_loss(params, dataset, rows, (0.01, 0.1, 1.0), 0.01, learned_termination)
    np.testing.assert_allclose(loss(params, rows, jnp.ones(12), dataset), expected, rtol=1e-5)
    # A partial batch is averaged over its own rows.
    expected = numpy_loss(params, dataset, rows[:, :5], (0.01, 0.1, 1.0), 0.01, learned_termination)
    weight = (jnp.arange(12) < 5).astype(jnp.float32)
    np.testing.assert_allclose(loss(params, rows, weight, dataset), expected, rtol=1e-5)


def count_visits(key, rows, weight, carry):
    """Count how often, with its weight, each row is visited, and note at which step last."""
    del key
    counts, visited, step = carry
    counts = jax.vmap(lambda counts, rows: counts.at[rows].add(weight))(counts, rows)
    visited = jax.vmap(lambda visited, rows: visited.at[rows].set(step))(visited, rows)
    return counts, visited, step + 1


def visits(num_rows: int):
    zeros = jnp.zeros((NUM_MEMBERS, num_rows))
    return zeros, zeros, jnp.float32(0)


@jax.jit(static_argnums=3)
def epoch_of_visits(key, rows, num_train, batch_size):
    return stopping.train_epoch(
        key, visits(rows.shape[1]), count_visits, rows, num_train, batch_size
    )


@pytest.mark.parametrize(("batch_size", "num_steps"), [(9, 4), (16, 3), (35, 2), (64, 1)])
def test_an_epoch_visits_each_training_slot_once(key, batch_size, num_steps):
    data_key, rows_key, epoch_key = jax.random.split(key, 3)
    split = dataset_of(data_key, filled(60, 50, max_size=45), fit_config())[0].split
    rows = draw_member_rows(rows_key, split, NUM_MEMBERS, bootstrap=True)
    (counts, *_), steps = epoch_of_visits(epoch_key, rows, split.num_train, batch_size)
    assert steps == num_steps
    for e in range(NUM_MEMBERS):
        resample = np.asarray(rows[e, : int(split.num_train)])
        np.testing.assert_array_equal(counts[e], np.bincount(resample, minlength=50))


def test_batches_are_drawn_anew_in_each_epoch(key):
    data_key, rows_key, *epoch_keys = jax.random.split(key, 4)
    split = dataset_of(data_key, filled(50, 50), fit_config())[0].split
    rows = draw_member_rows(rows_key, split, NUM_MEMBERS, bootstrap=False)
    (_, *first), (_, *second) = (
        epoch_of_visits(epoch_key, rows, split.num_train, 16)[0] for epoch_key in epoch_keys
    )
    assert first[1] == second[1] == 3
    assert not np.array_equal(first[0], second[0])


def test_a_budget_is_drawn_from_the_training_rows_by_each_member_for_itself(key):
    data_key, steps_key = jax.random.split(key)
    config = fit_config(stopping="budget", num_steps=40, cold_factor=5, batch_size=16)
    dataset, *_ = dataset_of(data_key, filled(60, 50, max_size=45), config)

    def gradient_step(key, rows, weight, carry):
        counts, steps = carry
        *counts, _ = count_visits(key, rows, weight, (*counts, steps))
        return tuple(counts), steps + 1

    *visited, start = visits(50)
    counts, steps = jax.jit(
        lambda key, dataset: stopping.train_by_budget(
            key, (tuple(visited), start), gradient_step, dataset.split, NUM_MEMBERS, True, config
        )
    )(steps_key, dataset)[:2]
    assert steps == 200
    counts = np.asarray(counts[0])
    trained = np.asarray(dataset.split.order)[9:45]
    assert set(np.flatnonzero(counts.sum(axis=0))) == set(trained)
    expected = 200 * 16 / 36
    # 35 degrees of freedom for each member.
    chi_square = np.sum((counts[:, trained] - expected) ** 2, axis=1) / expected
    assert np.all((chi_square > 12) & (chi_square < 75))
    assert len({tuple(row) for row in counts}) == NUM_MEMBERS


@pytest.mark.parametrize("num_rows", [50, 1300, 1900])
def test_holdout_error_equals_numpy(key, num_rows):
    data_key, init_key = jax.random.split(key)
    state, config = filled(num_rows, 1500), fit_config(max_holdout=280)
    ensemble = make(optax.adam(1e-3))
    params = random_params(init_key, ensemble)
    dataset, *_ = dataset_of(data_key, state, config)
    error = jax.jit(lambda *args: fitting.holdout_squared_error(args[0], ensemble, args[1]))
    rows = np.asarray(dataset.holdout_rows)[: int(dataset.split.num_holdout)]
    assert len(rows) == min(num_rows // 5, 280)
    for e, actual in enumerate(error(params, dataset)):
        mean = numpy_forward(params, e, np.float64(dataset.inputs)[rows])[:, :3]
        expected = np.mean((mean - np.float64(dataset.targets)[rows]) ** 2, axis=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_holdout_metrics_are_in_the_units_of_the_environment(key):
    dataset, _, scaler = dataset_of(key, filled(50, 50), fit_config(), normalize_targets=True)
    rows = np.asarray(dataset.holdout_rows)[: int(dataset.split.num_holdout)]
    # Who predicts the hold-out's mean has R2 = 0, who errs by half of that has R2 = 1/2.
    variance = np.var(np.asarray(dataset.targets)[rows], axis=0)
    error = jnp.asarray([variance * 1.2, variance * 0.8]) * jnp.asarray([[1.0, 0.5, 0.0]])
    metrics = jax.jit(fitting.holdout_metrics)(error, scaler, dataset)
    mse = variance * np.asarray([1.0, 0.5, 0.0]) * np.asarray(scaler.std) ** 2
    for i, name in enumerate(("reward", "observation_0", "observation_1")):
        np.testing.assert_allclose(metrics[f"model/holdout_r2/{name}"], 0.5 * i, atol=1e-5)
        np.testing.assert_allclose(metrics[f"model/holdout_mse/{name}"], mse[i], rtol=1e-4)
    np.testing.assert_allclose(metrics["model/holdout_r2"], 0.5, atol=1e-5)
    np.testing.assert_allclose(metrics["model/holdout_mse"], mse.mean(), rtol=1e-4)


@pytest.mark.parametrize("report_all", [False, True])
def test_of_many_outputs_the_worst_are_named(key, report_all):
    size = fitting.FEW_OUTPUTS + 4
    dataset = fitting.Dataset(
        **dict.fromkeys(fitting.Dataset._fields)
        | {
            "targets": jax.random.normal(key, (50, size)),
            "holdout_rows": jnp.arange(50),
            "split": Split(jnp.arange(50), jnp.int32(50), jnp.int32(0)),
        }
    )
    variance = jnp.var(dataset.targets, axis=0)
    r2 = jnp.linspace(1.0, 0.0, size).at[jnp.array([0, 5])].set(jnp.array([0.3, -1.0]))
    one = Scaler(jnp.zeros(size), jnp.ones(size))
    metrics = fitting.holdout_metrics(((1 - r2) * variance)[None], one, dataset, report_all)
    np.testing.assert_allclose(metrics["model/holdout_r2/reward"], 0.3, atol=1e-5)
    if report_all:
        assert len(metrics) == 2 + 2 * size
        np.testing.assert_allclose(metrics["model/holdout_r2/observation_4"], -1.0, atol=1e-5)
        return
    assert len(metrics) == 2 + 2 + 2 * 3 + 3
    for place, component in ((1, 4), (2, size - 2), (3, size - 3)):
        assert metrics[f"model/holdout_r2/worst_{place}_component"] == component
    np.testing.assert_allclose(metrics["model/holdout_r2/worst_1"], -1.0, atol=1e-5)
    np.testing.assert_allclose(
        metrics["model/holdout_r2/quantile_50"], np.median(np.asarray(r2)[1:]), atol=1e-5
    )


# The real thing


def test_vmap_over_runs_equals_a_loop_and_is_traced_once(key):
    optimizer = optax.adam(1e-2)
    ensemble = make(optimizer, num_members=2, num_elites=1)
    config = fit_config(patience=1, max_epochs=8)
    init_keys, fit_keys = jax.random.split(key, (2, 2))
    states = jax.jit(jax.vmap(ensemble.init))(init_keys)
    buffers = [filled(35, 60, seed=1), filled(75, 60, seed=2)]
    num_traces = 0

    def fit(key, state, buffer):
        nonlocal num_traces
        num_traces += 1
        return fitting.fit(
            key,
            state,
            buffer,
            ensemble,
            optimizer,
            config,
            bound_penalty_weight=0.01,
            normalize_targets=True,
        )

    together = jax.jit(jax.vmap(fit))(
        jax.random.clone(fit_keys), states, jax.tree.map(lambda *x: jnp.stack(x), *buffers)
    )
    num_traces = 0
    alone = jax.jit(fit)
    for i, buffer in enumerate(buffers):
        run = alone(fit_keys[i], jax.tree.map(lambda x, i=i: x[i], states), buffer)
        for one, expected in zip(jax.tree.leaves(together), jax.tree.leaves(run), strict=True):
            np.testing.assert_allclose(one[i], expected, rtol=1e-3, atol=1e-4)
    assert num_traces == 1


def test_a_linear_gaussian_system_is_recovered(key):
    optimizer = optax.adam(1e-2)
    ensemble = make(optimizer, (16,))
    config = fit_config(2, weight_decays=(1e-5, 1e-5), batch_size=128)
    init_key, fit_key = jax.random.split(key)
    state = initial(init_key, ensemble)
    state, metrics = run_fit(fit_key, state, filled(2000, 2000), ensemble, optimizer, config)
    fresh, mean = linear_system(np.random.default_rng(1), 500)
    rows = [np.broadcast_to(x, (NUM_MEMBERS, *x.shape)) for x in (fresh.observation, fresh.action)]
    outcome = jax.jit(ensemble.predict)(state, *rows)
    mean[:, 1:] += fresh.observation
    error = np.sqrt(np.mean((np.mean(outcome.mean, axis=0) - mean) ** 2, axis=0))
    std = np.sqrt(np.mean(np.square(outcome.std), axis=(0, 1)))
    assert np.all(error < 0.25 * NOISE_STD)
    np.testing.assert_allclose(std, NOISE_STD, rtol=0.15)
    # The best R2 there is: 1 minus the noise's share of each target's variance.
    variance = np.sum(A**2, axis=0) + np.sum(B**2, axis=0) / 3.0 + NOISE_STD**2
    best = np.mean(1.0 - NOISE_STD**2 / variance)
    np.testing.assert_allclose(metrics["model/holdout_r2"], best, atol=0.05)
