"""Fitting the ensemble to the replay buffer, inside `jit` (Janner et al. 2019)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.config import FitConfig
from mbpo_jax.models import stopping
from mbpo_jax.models.dataset import HOLDOUT_BLOCK, Dataset, draw_member_rows, make_dataset
from mbpo_jax.models.ensemble import (
    Ensemble,
    EnsembleParams,
    EnsembleState,
    bound_penalty,
    gaussian_nll,
    weight_decay,
)
from mbpo_jax.models.stopping import GradientStep
from mbpo_jax.nets import networks
from mbpo_jax.nets.normalizer import Scaler, fit_scaler
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Metrics

FEW_OUTPUTS = 16
"""As many outputs of the model are reported one by one."""
WORST = 3
QUANTILES = (10, 50, 90)
"""Percent."""


def loss_fn(
    key: jax.Array,
    params: EnsembleParams,
    ensemble: Ensemble,
    rows: jax.Array,
    weight: jax.Array,
    dataset: Dataset,
    config: FitConfig,
    penalty: jax.Array | float,
) -> jax.Array:
    """Return the loss of one minibatch, summed over members.

    For each member the mean over targets and rows of `gaussian_nll`, plus the weight decay and the
    penalty on the bounds (arXiv:1805.12114, appendix A.1). With a termination head, the mean binary
    cross-entropy of terminations is added (ours).

    Args:
      key: a key, used up if units are left out.
      params: of the ensemble.
      ensemble: its functions.
      rows: `[E, B]` int32, rows of the dataset.
      weight: `[B]`, 1 for rows that count.
      dataset: what the rows refer to.
      config: weight decays.
      penalty: weight of `bound_penalty`.
    """
    out = ensemble.outputs(params, dataset.inputs[rows], key)
    nll = jnp.mean(gaussian_nll(out.mean, out.log_variance, dataset.targets[rows]), axis=-1)
    if out.termination_logit is not None:
        logit = out.termination_logit
        nll += optax.sigmoid_binary_cross_entropy(logit, dataset.terminated[rows])
    data_loss = jnp.sum(nll * weight[None, :]) / jnp.sum(weight)
    decay = weight_decay(networks.kernels(params.members), config.weight_decays)
    return data_loss + decay + penalty * bound_penalty(*ensemble.bounds(params))


def make_gradient_step(
    ensemble: Ensemble,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    config: FitConfig,
    penalty: jax.Array | float,
) -> GradientStep:
    """Build what is done with each minibatch; see `loss_fn`."""

    def loss(params: EnsembleParams, key: jax.Array, rows: jax.Array, weight: jax.Array):
        return loss_fn(key, params, ensemble, rows, weight, dataset, config, penalty)

    @jax.named_scope("gradient_step")
    def gradient_step(key, rows, weight, carry):
        params, optimizer_state = carry
        gradient = jax.grad(loss)(params, key, rows, weight)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        stepped: Any = optax.apply_updates(params, updates)
        return stepped, optimizer_state

    return gradient_step


def holdout_squared_error(
    params: EnsembleParams, ensemble: Ensemble, dataset: Dataset
) -> jax.Array:
    """Return the mean squared error on the hold-out, `[E, D]`, in units of the scaled targets."""
    num_members = networks.num_members(params.members)
    num_holdout = dataset.split.num_holdout

    def block(size: int, i: jax.Array, total: jax.Array) -> jax.Array:
        first = i * size
        rows = jax.lax.dynamic_slice(dataset.holdout_rows, (first,), (size,))
        weight = first + jnp.arange(size) < num_holdout
        x = networks.for_all(params.members, dataset.inputs[rows])
        error = jnp.square(ensemble.outputs(params, x).mean - dataset.targets[rows][None])
        return total + jnp.sum(jnp.where(weight[None, :, None], error, 0.0), axis=1)

    def in_blocks(total: jax.Array) -> jax.Array:
        blocks = -(-num_holdout // HOLDOUT_BLOCK)
        return jax.lax.fori_loop(0, blocks, functools.partial(block, HOLDOUT_BLOCK), total)

    def at_once(total: jax.Array) -> jax.Array:
        return block(dataset.holdout_rows.shape[0], jnp.int32(0), total)

    start = jnp.zeros((num_members, dataset.targets.shape[1]))
    # A CPU's caches hold the activations of a block; an accelerator's time is its launches.
    total = jax.lax.platform_dependent(start, cpu=in_blocks, default=at_once)
    return total / num_holdout


def fit(
    key: jax.Array,
    state: EnsembleState,
    buffer: ReplayState,
    ensemble: Ensemble,
    optimizer: optax.GradientTransformation,
    config: FitConfig,
    *,
    bound_penalty_weight: jax.Array | float,
    normalize_targets: bool,
    num_rows: jax.Array | int | None = None,
    is_cold: jax.Array | bool = False,
) -> tuple[EnsembleState, Metrics]:
    """Fit the ensemble to all valid transitions, starting from its present parameters.

    Args:
      key: a key, used up.
      state: the ensemble before the fit.
      buffer: real transitions.
      ensemble: its functions.
      optimizer: what trains it.
      config: data split, minibatches, stopping.
      bound_penalty_weight: weight of the penalty on the log-variance's bounds.
      normalize_targets: scale targets with the statistics of the training rows.
      num_rows: how many to make of the valid rows, at least two; just these if None.
      is_cold: bool, the ensemble was never fitted.

    Returns:
      The fitted ensemble and `model/*` metrics.
    """
    num_members = networks.num_members(state.params.members)
    data_key, steps_key = jax.random.split(key)
    split_key, bootstrap_key = jax.random.split(data_key)
    dataset, input_scaler, target_scaler = make_dataset(
        split_key,
        ensemble,
        buffer,
        config,
        normalize_targets=normalize_targets,
        num_rows=num_rows,
    )

    gradient_step = make_gradient_step(ensemble, optimizer, dataset, config, bound_penalty_weight)
    start = state.params, state.optimizer
    if config.stopping == "budget":
        trained = stopping.train_by_budget(
            steps_key, start, gradient_step, dataset.split, num_members, is_cold, config
        )
    else:
        trained = stopping.train_until_idle(
            steps_key,
            start,
            gradient_step,
            lambda params: jnp.mean(holdout_squared_error(params, ensemble, dataset), axis=1),
            draw_member_rows(bootstrap_key, dataset.split, num_members, bootstrap=config.bootstrap),
            dataset.split.num_train,
            config,
        )
    error = holdout_squared_error(trained.params, ensemble, dataset)
    num_elites = state.elites.shape[0]
    elites = jnp.argsort(jnp.mean(error, axis=1))[:num_elites]
    fitted = EnsembleState(trained.params, trained.optimizer, input_scaler, target_scaler, elites)
    metrics = {"model/epochs": trained.epochs, "model/gradient_steps": trained.steps}
    held_out = holdout_metrics(error[elites], target_scaler, dataset, config.report_all_outputs)
    return fitted, metrics | held_out


def output_names(target_size: int) -> list[str]:
    """Name the model's outputs: the reward, then each component of the observation."""
    return ["reward", *(f"observation_{i}" for i in range(target_size - 1))]


def holdout_metrics(
    error: jax.Array, target_scaler: Scaler, dataset: Dataset, report_all: bool = False
) -> Metrics:
    """Report error and R2 on the hold-out, averaged over elites, in total and per output.

    Of more than `FEW_OUTPUTS` there are, of the observation's, the quantiles of R2 and the `WORST`
    with the number of their component, instead of all. Where a target is constant there is no R2;
    its error, subtracted from 1, stands in its place.

    Args:
      error: `[num_elites, D]` mean squared error, scaled.
      target_scaler: `[D]`, to return to the environment's units.
      dataset: for the variance of the held-out targets.
      report_all: report every output, however many there are.
    """
    count = jnp.arange(dataset.holdout_rows.shape[0]) < dataset.split.num_holdout
    targets = dataset.targets[dataset.holdout_rows]
    variance = jnp.square(fit_scaler(targets, count.astype(jnp.float32)).std)
    mse = jnp.mean(error, axis=0)
    r2 = 1.0 - mse / variance
    mse = mse * jnp.square(target_scaler.std)
    metrics = {"model/holdout_mse": jnp.mean(mse), "model/holdout_r2": jnp.mean(r2)}
    num_outputs = mse.shape[0]
    few = report_all or num_outputs <= FEW_OUTPUTS
    for i, name in enumerate(output_names(num_outputs if few else 1)):
        metrics[f"model/holdout_mse/{name}"] = mse[i]
        metrics[f"model/holdout_r2/{name}"] = r2[i]
    if not few:
        worst = jnp.argsort(r2[1:])[:WORST]
        for i in range(WORST):
            metrics[f"model/holdout_r2/worst_{i + 1}"] = r2[1:][worst[i]]
            metrics[f"model/holdout_r2/worst_{i + 1}_component"] = worst[i].astype(jnp.float32)
        for percent in QUANTILES:
            quantile = jnp.quantile(r2[1:], percent / 100)
            metrics[f"model/holdout_r2/quantile_{percent}"] = quantile
    return metrics
