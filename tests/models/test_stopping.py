"""Early stopping of a fit against a plain re-derivation of the reference."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models import fit as fitting
from mbpo_jax.models import stopping
from tests.linear_system import (
    NUM_MEMBERS,
    counting_optimizer,
    filled,
    fit_config,
    initial,
    make,
    run_fit,
    steps_of,
)


def reference_stopping(errors, patience: int, min_improvement: float):
    """Stop as the reference does; return the best errors, their epochs (from 1), and the epochs."""
    best, best_epoch = [math.inf] * len(errors[0]), [0] * len(errors[0])
    epochs_since_update = 0
    for epoch, current in enumerate(errors, start=1):
        updated = False
        for i, error in enumerate(current):
            first = math.isinf(best[i]) and math.isfinite(error)
            if first or (best[i] - error) / best[i] > min_improvement:
                best[i], best_epoch[i], updated = error, epoch, True
        epochs_since_update = 0 if updated else epochs_since_update + 1
        if epochs_since_update > patience:
            break
    return best, best_epoch, epoch


def random_errors(num_sequences: int, num_epochs: int) -> np.ndarray:
    """Draw hold-out errors that fall by about the threshold, with outliers and failures."""
    rng = np.random.default_rng(0)
    shape = (num_sequences, num_epochs, NUM_MEMBERS)
    errors = np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=1) + rng.normal(0.0, 0.01, shape))
    errors *= rng.choice([1.0, 1e-3, 1e6], shape, p=[0.98, 0.01, 0.01])
    return np.where(rng.random(shape) < 0.05, np.nan, errors).astype(np.float32)


@pytest.mark.parametrize("min_improvement", [0.0, 0.01, 0.1])
def test_stopping_rule_equals_the_reference(min_improvement):
    errors = random_errors(150, 12)

    def last_state(errors):
        start = stopping.Stopping(jnp.full(NUM_MEMBERS, jnp.inf), jnp.int32(0))
        return jax.lax.scan(
            lambda state, error: (stopping.update_stopping(state, error, min_improvement)[0],) * 2,
            start,
            errors,
        )[1]

    states = jax.jit(jax.vmap(last_state))(errors)
    for i, sequence in enumerate(errors):
        for patience in (0, 2):
            best, _, epochs = reference_stopping(sequence.tolist(), patience, min_improvement)
            idle = np.asarray(states.idle_epochs[i])
            stops = np.append(np.flatnonzero(idle > patience), len(sequence) - 1)[0]
            assert stops + 1 == epochs
            np.testing.assert_allclose(states.best_error[i, stops], best, rtol=1e-6)


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_a_nonfinite_error_is_no_improvement(error):
    start = stopping.Stopping(jnp.full(1, jnp.inf), jnp.int32(3))
    after, improved = stopping.update_stopping(start, jnp.full(1, error), 0.01)
    assert not improved[0]
    assert np.isinf(after.best_error[0])
    assert int(after.idle_epochs) == 4


# The whole fit, with an optimiser that counts gradient steps and hold-out errors from a script


def script_errors(monkeypatch, script: jax.Array) -> None:
    """Let member e have the hold-out error `script[t, e]` after t epochs of one step."""

    def scripted(params, ensemble, dataset):
        epoch = params.members["params"]["layer_0"]["bias"][:, 0].astype(jnp.int32)
        error = script[epoch, jnp.arange(NUM_MEMBERS)]
        return jnp.broadcast_to(error[:, None], (NUM_MEMBERS, dataset.targets.shape[1]))

    monkeypatch.setattr(fitting, "holdout_squared_error", scripted)


def test_each_member_gets_its_own_best_weights_back(key, monkeypatch):
    num_runs, num_epochs = 40, 30
    errors = random_errors(num_runs, num_epochs)
    optimizer = counting_optimizer()
    ensemble, buffer = make(optimizer), filled(20, 20)
    # One step is one epoch. The last row of a script is the error before the fit.
    config = fit_config(batch_size=32, patience=2, max_epochs=num_epochs)

    def scripted_fit(keys, script):
        script_errors(monkeypatch, jnp.concatenate([jnp.full((1, NUM_MEMBERS), 99.0), script]))
        state, metrics = fitting.fit(
            keys[0],
            ensemble.init(keys[1]),
            buffer,
            ensemble,
            optimizer,
            config,
            bound_penalty_weight=0.01,
            normalize_targets=False,
        )
        return steps_of(state), state.elites, metrics["model/epochs"]

    keys = jax.random.split(key, (num_runs, 2))
    steps, elites, epochs = jax.jit(jax.vmap(scripted_fit))(keys, errors)
    for i in range(num_runs):
        best, best_epoch, last = reference_stopping(errors[i].tolist(), 2, 0.01)
        assert int(epochs[i]) == last
        assert list(steps[i]) == best_epoch
        best = np.where(np.isinf(best), 99.0, best)
        assert list(elites[i]) == list(np.argsort(best)[:2])
    assert len(np.unique(epochs)) > 5, "runs of one program stop at different times"


@pytest.mark.parametrize(
    ("falls", "options", "epochs"),
    [
        (True, {"max_epochs": 7}, 7),
        (False, {"max_epochs": 7}, 4),
        (False, {"min_steps": 3}, 4),
        (False, {"min_steps": 9}, 9),
        (False, {"min_steps": 9, "max_epochs": 7}, 7),
    ],
    ids=str,
)
def test_a_fit_ends_with_its_patience_its_least_steps_or_its_most_epochs(
    key, monkeypatch, falls, options, epochs
):
    """An error that never falls after the first epoch uses up a patience of 2 in the fourth."""
    optimizer = counting_optimizer()
    ensemble = make(optimizer)
    errors = jnp.exp(-jnp.arange(20.0)) if falls else jnp.ones(20)
    script_errors(monkeypatch, jnp.tile(errors[:, None], (1, NUM_MEMBERS)))
    fit_key, init_key = jax.random.split(key)
    # One step is one epoch.
    config = fit_config(batch_size=32, patience=2, **options)
    state, metrics = run_fit(
        fit_key, initial(init_key, ensemble), filled(20, 20), ensemble, optimizer, config
    )
    assert int(metrics["model/epochs"]) == int(metrics["model/gradient_steps"]) == epochs
    # What is taken is the snapshot of the last improvement.
    assert list(steps_of(state)) == [epochs if falls else 1] * NUM_MEMBERS
