"""How long a fit goes on: epochs until no member improves any more, or a budget.

The former is MBPO's (Janner et al. 2019, arXiv:1906.08253, appendix and published code): whole
epochs of minibatches, a snapshot of each member whenever its hold-out error fell by more than 1 %,
and a stop once no member improved for over 5 epochs. The latter is ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import loops
from mbpo_jax.config import FitConfig
from mbpo_jax.models.dataset import Split, shuffled, training_rows
from mbpo_jax.models.ensemble import EnsembleParams
from mbpo_jax.models.rows import where_rows
from mbpo_jax.types import PyTree

GradientStep = Callable[
    [jax.Array, jax.Array, jax.Array, tuple[EnsembleParams, PyTree]],
    tuple[EnsembleParams, PyTree],
]
"""`(key, rows [E, B], weight [B], (params, optimizer state)) -> (params, optimizer state)`."""


class Trained(NamedTuple):
    """What gradient steps have made of an ensemble.

    Attributes:
      params: trained.
      optimizer: Adam's state.
      epochs: how often the training rows were gone through; a fraction where they were drawn.
      steps: int32, gradient steps.
    """

    params: EnsembleParams
    optimizer: PyTree
    epochs: jax.Array
    steps: jax.Array


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


def train_epoch(
    key: jax.Array,
    start: tuple[EnsembleParams, PyTree],
    gradient_step: GradientStep,
    member_rows: jax.Array,
    num_train: jax.Array,
    batch_size: int,
) -> tuple[tuple[EnsembleParams, PyTree], jax.Array]:
    """Run over the training rows once, in random order, in minibatches; the last may be smaller.

    One permutation of slots serves all members: a slot holds another row for each of them, drawn
    independently, so every member sees a uniformly random order of its own rows.

    Args:
      key: a key, used up.
      start: parameters and the optimizer's state.
      gradient_step: what is done with each minibatch.
      member_rows: `[E, capacity]`, from `draw_member_rows`.
      num_train: how many of them count.
      batch_size: B.

    Returns:
      Parameters and the optimizer's state, and the number of gradient steps taken.
    """
    capacity = member_rows.shape[1]
    shuffle_key, steps_key = jax.random.split(key)
    slots = shuffled(shuffle_key, jnp.arange(capacity) < num_train)
    slots = jnp.concatenate([slots, jnp.zeros(batch_size, slots.dtype)])
    steps = -(-num_train // batch_size)

    def step(i: jax.Array, carry: tuple[EnsembleParams, PyTree]):
        first = i * batch_size
        batch_slots = jax.lax.dynamic_slice(slots, (first,), (batch_size,))
        weight = (first + jnp.arange(batch_size) < num_train).astype(jnp.float32)
        return gradient_step(
            jax.random.fold_in(steps_key, i), member_rows[:, batch_slots], weight, carry
        )

    return loops.repeat(steps, step, start), steps


def train_until_idle(
    key: jax.Array,
    start: tuple[EnsembleParams, PyTree],
    gradient_step: GradientStep,
    holdout_error: Callable[[EnsembleParams], jax.Array],
    member_rows: jax.Array,
    num_train: jax.Array,
    config: FitConfig,
) -> Trained:
    """Make epochs until no member improves any more, and return each member at its best.

    As in the reference, restored members keep the bounds and Adam moments of the last step.

    Args:
      key: a key, used up.
      start: parameters and the optimizer's state.
      gradient_step: what is done with each minibatch.
      holdout_error: of each member, `[E]`.
      member_rows: `[E, capacity]`, from `draw_member_rows`.
      num_train: how many of them count.
      config: minibatches, patience.
    """

    def goes_on(loop: FitLoop) -> jax.Array:
        within = True if config.max_epochs is None else loop.epoch < config.max_epochs
        patient = loop.stopping.idle_epochs <= config.patience
        return (patient | (loop.steps < config.min_steps)) & within

    def epoch(loop: FitLoop) -> FitLoop:
        (params, optimizer_state), steps = train_epoch(
            jax.random.fold_in(key, loop.epoch),
            (loop.params, loop.optimizer),
            gradient_step,
            member_rows,
            num_train,
            config.batch_size,
        )
        error = holdout_error(params)
        stopping, improved = update_stopping(loop.stopping, error, config.min_improvement)
        best = where_rows(improved, params.members, loop.best_members)
        return FitLoop(params, optimizer_state, best, stopping, loop.epoch + 1, loop.steps + steps)

    params, optimizer_state = start
    num_members = member_rows.shape[0]
    end = jax.lax.while_loop(
        goes_on,
        epoch,
        FitLoop(
            params=params,
            optimizer=optimizer_state,
            best_members=params.members,
            stopping=Stopping(jnp.full(num_members, jnp.inf), jnp.int32(0)),
            epoch=jnp.int32(0),
            steps=jnp.int32(0),
        ),
    )
    params = end.params._replace(members=end.best_members)
    return Trained(params, end.optimizer, end.epoch, end.steps)


def train_by_budget(
    key: jax.Array,
    start: tuple[EnsembleParams, PyTree],
    gradient_step: GradientStep,
    split: Split,
    num_members: int,
    is_cold: jax.Array | bool,
    config: FitConfig,
) -> Trained:
    """Make a number of gradient steps that is known before, on rows drawn with replacement.

    Nothing is sorted, no hold-out is looked at, and the last parameters are kept: a model that is
    fitted again and again to a growing buffer has little to gain from a stop at its best moment.

    Args:
      key: a key, used up.
      start: parameters and the optimizer's state.
      gradient_step: what is done with each minibatch.
      split: which rows are drawn.
      num_members: E; each draws rows of its own.
      is_cold: bool, the model was never fitted.
      config: the budget.
    """
    shape, num_train = (num_members, config.batch_size), split.num_train
    weight = jnp.ones(config.batch_size)

    def step(i: jax.Array, carry: tuple[EnsembleParams, PyTree]):
        slots_key, step_key = jax.random.split(jax.random.fold_in(key, i))
        slots = jax.random.randint(slots_key, shape, 0, num_train)
        rows = training_rows(split, slots)
        return gradient_step(step_key, rows, weight, carry)

    def share(number: jax.Array, carry: tuple[EnsembleParams, PyTree]):
        first = number * config.num_steps
        return jax.lax.fori_loop(0, config.num_steps, lambda i, c: step(first + i, c), carry)

    # Runs side by side are all cold or none is that counts, but `vmap` does not know: a number for
    # each run would copy all parameters at each turn.
    shares = loops.greatest_of_runs(jnp.where(is_cold, config.cold_factor, 1))
    params, optimizer_state = jax.lax.fori_loop(0, shares, share, start)
    steps = jnp.int32(shares * config.num_steps)
    return Trained(params, optimizer_state, steps * config.batch_size / num_train, steps)
