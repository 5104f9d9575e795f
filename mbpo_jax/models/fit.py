"""Fitting the ensemble to the replay buffer, with early stopping per member, inside `jit`.

The reference is MBPO (Janner et al. 2019, arXiv:1906.08253, appendix and published code): whole
epochs of minibatches, a snapshot of each member whenever its hold-out error fell by more than 1 %,
and a stop once no member improved for over 5 epochs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.config import FitConfig
from mbpo_jax.models.dataset import HOLDOUT_BLOCK, Dataset, make_dataset
from mbpo_jax.models.ensemble import (
    Ensemble,
    EnsembleParams,
    EnsembleState,
    bound_penalty,
    gaussian_nll,
    weight_decay,
)
from mbpo_jax.models.rows import where_rows
from mbpo_jax.nets import networks
from mbpo_jax.nets.normalizer import Scaler, fit_scaler
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Metrics, PyTree

FEW_OUTPUTS = 16
"""As many outputs of the model are reported one by one."""
WORST = 3
QUANTILES = (10, 50, 90)
"""Percent."""


class Stopping(NamedTuple):
    """Progress of early stopping.

    Attributes:
      best_error: `[E]` hold-out error of each member's snapshot, infinite before the first.
      idle_epochs: int32, epochs since any member improved.
    """

    best_error: jax.Array
    idle_epochs: jax.Array


class FitLoop(NamedTuple):
    """Carry of the loop over epochs.

    Attributes:
      params: being trained.
      optimizer: Adam's state.
      best_members: each member's snapshot.
      stopping: progress of early stopping.
      epoch: int32, epochs done.
      steps: int32, gradient steps done.
    """

    params: EnsembleParams
    optimizer: PyTree
    best_members: PyTree
    stopping: Stopping
    epoch: jax.Array
    steps: jax.Array


def update_stopping(
    stopping: Stopping, error: jax.Array, min_improvement: jax.Array | float
) -> tuple[Stopping, jax.Array]:
    """Apply the stopping rule to the hold-out errors `[E]` of one epoch.

    A member improves if `(best - error) / best > min_improvement`. A non-finite error is none.

    Returns:
      The new state and which members improved, `[E]` bool.
    """
    improved = error < stopping.best_error * (1.0 - min_improvement)
    best_error = jnp.where(improved, error, stopping.best_error)
    idle_epochs = jnp.where(jnp.any(improved), 0, stopping.idle_epochs + 1)
    return Stopping(best_error, idle_epochs.astype(jnp.int32)), improved


def loss_fn(
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
      params: of the ensemble.
      ensemble: its functions.
      rows: `[E, B]` int32, rows of the dataset.
      weight: `[B]`, 1 for rows that count.
      dataset: what the rows refer to.
      config: weight decays.
      penalty: weight of `bound_penalty`.
    """
    out = ensemble.outputs(params, dataset.inputs[rows])
    nll = jnp.mean(gaussian_nll(out.mean, out.log_variance, dataset.targets[rows]), axis=-1)
    if out.termination_logit is not None:
        logit = out.termination_logit
        nll += optax.sigmoid_binary_cross_entropy(logit, dataset.terminated[rows])
    data_loss = jnp.sum(nll * weight[None, :]) / jnp.sum(weight)
    decay = weight_decay(networks.kernels(params.members), config.weight_decays)
    return data_loss + decay + penalty * bound_penalty(*ensemble.bounds(params))


def train_epoch(
    key: jax.Array,
    params: EnsembleParams,
    optimizer_state: PyTree,
    step_loss: Callable[[EnsembleParams, jax.Array, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    batch_size: int,
    max_steps: jax.Array | int,
) -> tuple[EnsembleParams, PyTree, jax.Array]:
    """Run over the training rows once, in random order, in minibatches; the last may be smaller.

    One permutation of slots serves all members: a slot holds another row for each of them, drawn
    independently, so every member sees a uniformly random order of its own rows.

    Returns:
      Parameters, optimizer state, and the number of gradient steps taken.
    """
    capacity = dataset.member_rows.shape[1]
    place = jax.random.uniform(key, (capacity,))
    slots = jnp.argsort(jnp.where(jnp.arange(capacity) < dataset.num_train, place, jnp.inf))
    slots = jnp.concatenate([slots, jnp.zeros(batch_size, slots.dtype)])
    steps = jnp.minimum(-(-dataset.num_train // batch_size), max_steps)

    def step(i, carry):
        params, optimizer_state = carry
        start = i * batch_size
        batch_slots = jax.lax.dynamic_slice(slots, (start,), (batch_size,))
        weight = (start + jnp.arange(batch_size) < dataset.num_train).astype(jnp.float32)
        gradient = jax.grad(step_loss)(params, dataset.member_rows[:, batch_slots], weight)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    params, optimizer_state = jax.lax.fori_loop(0, steps, step, (params, optimizer_state))
    return params, optimizer_state, steps


def holdout_squared_error(
    params: EnsembleParams, ensemble: Ensemble, dataset: Dataset
) -> jax.Array:
    """Return the mean squared error on the hold-out, `[E, D]`, in units of the scaled targets."""
    num_members = dataset.member_rows.shape[0]

    def block(i, total):
        start = i * HOLDOUT_BLOCK
        rows = jax.lax.dynamic_slice(dataset.holdout_rows, (start,), (HOLDOUT_BLOCK,))
        weight = start + jnp.arange(HOLDOUT_BLOCK) < dataset.num_holdout
        x = jnp.broadcast_to(dataset.inputs[rows], (num_members, *dataset.inputs[rows].shape))
        error = jnp.square(ensemble.outputs(params, x).mean - dataset.targets[rows][None])
        return total + jnp.sum(jnp.where(weight[None, :, None], error, 0.0), axis=1)

    blocks = -(-dataset.num_holdout // HOLDOUT_BLOCK)
    start = jnp.zeros((num_members, dataset.targets.shape[1]))
    return jax.lax.fori_loop(0, blocks, block, start) / dataset.num_holdout


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
) -> tuple[EnsembleState, Metrics]:
    """Fit the ensemble to all valid transitions, starting from its present parameters.

    As in the reference, restored members keep the bounds and Adam moments of the last step.

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

    Returns:
      The fitted ensemble and `model/*` metrics.
    """
    num_members = jax.tree.leaves(state.params.members)[0].shape[0]
    data_key, epochs_key = jax.random.split(key)
    dataset, input_scaler, target_scaler = make_dataset(
        data_key,
        ensemble,
        buffer,
        config,
        num_members=num_members,
        normalize_targets=normalize_targets,
        num_rows=num_rows,
    )

    def step_loss(params, rows, weight):
        return loss_fn(params, ensemble, rows, weight, dataset, config, bound_penalty_weight)

    def goes_on(loop: FitLoop) -> jax.Array:
        if config.stopping == "fixed":
            return loop.steps < config.num_steps
        within = True if config.max_epochs is None else loop.epoch < config.max_epochs
        patient = loop.stopping.idle_epochs <= config.patience
        return (patient | (loop.steps < config.min_steps)) & within

    def epoch(loop: FitLoop) -> FitLoop:
        fixed = config.stopping == "fixed"
        params, optimizer_state, steps = train_epoch(
            jax.random.fold_in(epochs_key, loop.epoch),
            loop.params,
            loop.optimizer,
            step_loss,
            optimizer,
            dataset,
            config.batch_size,
            config.num_steps - loop.steps if fixed else jnp.iinfo(jnp.int32).max,
        )
        stopping, best = loop.stopping, params.members
        if not fixed:
            error = jnp.mean(holdout_squared_error(params, ensemble, dataset), axis=1)
            stopping, improved = update_stopping(stopping, error, config.min_improvement)
            best = where_rows(improved, params.members, loop.best_members)
        return FitLoop(params, optimizer_state, best, stopping, loop.epoch + 1, loop.steps + steps)

    start = FitLoop(
        params=state.params,
        optimizer=state.optimizer,
        best_members=state.params.members,
        stopping=Stopping(jnp.full(num_members, jnp.inf), jnp.int32(0)),
        epoch=jnp.int32(0),
        steps=jnp.int32(0),
    )
    end = jax.lax.while_loop(goes_on, epoch, start)
    params = end.params._replace(members=end.best_members)
    error = holdout_squared_error(params, ensemble, dataset)
    num_elites = state.elites.shape[0]
    elites = jnp.argsort(jnp.mean(error, axis=1))[:num_elites]
    fitted = EnsembleState(params, end.optimizer, input_scaler, target_scaler, elites)
    metrics = {"model/epochs": end.epoch, "model/gradient_steps": end.steps}
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
    count = jnp.arange(dataset.holdout_rows.shape[0]) < dataset.num_holdout
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
