"""A linear-Gaussian system, buffers filled from it, and small ensembles to fit to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mbpo_jax.algorithms  # noqa: F401  (registers the config classes with JAX)
from mbpo_jax import replay
from mbpo_jax.config import EnsembleConfig, FitConfig
from mbpo_jax.models import dataset, fit
from mbpo_jax.models.ensemble import Ensemble, EnsembleState, make_ensemble
from mbpo_jax.nets.normalizer import Scaler
from mbpo_jax.types import EnvSpec, Transition

SPEC = EnvSpec("test", 2, 1, episode_length=10, action_repeat=1, dt=0.1)
NUM_MEMBERS = 3

# next_observation = observation + observation @ A + action @ B + noise; the reward is linear, too.
A = np.asarray([[-0.1, 0.5, 0.3], [1.0, -0.2, 0.4]])
B = np.asarray([[0.7, -1.0, 0.2]])
NOISE_STD = np.asarray([0.3, 0.2, 0.4])


def linear_system(rng: np.random.Generator, num_rows: int) -> tuple[Transition, np.ndarray]:
    """Draw transitions of a linear-Gaussian system, and the true means of their targets."""
    observation, action = rng.normal(size=(num_rows, 2)), rng.uniform(-1.0, 1.0, (num_rows, 1))
    mean = observation @ A + action @ B
    target = mean + NOISE_STD * rng.normal(size=mean.shape)
    discount = (rng.random(num_rows) > 0.2).astype(float)
    fields = (observation, action, target[:, 0], discount, observation + target[:, 1:])
    return Transition(*(np.float32(field) for field in fields)), mean


def filled(
    num_rows: int, capacity: int, max_size: int | None = None, seed: int = 0
) -> replay.ReplayState:
    """Return a buffer after that many transitions of the linear system, the t-th in row t."""
    transitions, _ = linear_system(np.random.default_rng(seed), num_rows)
    row, size = np.arange(num_rows), min(num_rows, max_size or capacity, capacity)
    # The last to write a row wins.
    newest = row[-capacity:]
    data = jax.tree.map(np.array, replay.init(capacity, 2, 1).data)

    def write(field: np.ndarray, new: np.ndarray) -> None:
        field[newest % capacity] = new[newest]

    jax.tree.map(write, data, transitions)
    return replay.ReplayState(
        jax.tree.map(jnp.asarray, data), jnp.int32(num_rows % capacity), jnp.int32(size)
    )


def make(
    optimizer: optax.GradientTransformation,
    hidden_sizes: tuple[int, ...] = (),
    learned_termination: bool = False,
    **options,
) -> Ensemble:
    options = {"num_members": NUM_MEMBERS, "num_elites": 2} | options
    config = EnsembleConfig(hidden_sizes=hidden_sizes, **options)
    return make_ensemble(SPEC, config, optimizer, learned_termination=learned_termination)


def initial(key: jax.Array, ensemble: Ensemble) -> EnsembleState:
    return jax.jit(ensemble.init)(key)


def fit_config(num_layers: int = 1, **options) -> FitConfig:
    return FitConfig(**{"weight_decays": (1e-4,) * num_layers, "batch_size": 16} | options)


def dataset_of(
    key: jax.Array,
    state: replay.ReplayState,
    config: FitConfig,
    normalize_targets: bool = False,
    num_rows: int | None = None,
) -> tuple[dataset.Dataset, Scaler, Scaler]:
    make_dataset = functools.partial(
        dataset.make_dataset,
        ensemble=make(optax.adam(1e-3)),
        config=config,
        normalize_targets=normalize_targets,
        num_rows=num_rows,
    )
    return jax.jit(lambda key, state: make_dataset(key, state=state))(key, state)


def counting_optimizer() -> optax.GradientTransformation:
    """Add one to every parameter at each step, so that parameters tell the time."""

    def update(gradient, state, params=None):
        del params
        return jax.tree.map(jnp.ones_like, gradient), state

    return optax.GradientTransformation(lambda params: (), update)


def steps_of(state: EnsembleState) -> jax.Array:
    """Return at which gradient step each member was taken, if the optimiser counts."""
    return state.params.members["params"]["layer_0"]["bias"][:, 0].astype(jnp.int32)


def run_fit(
    key, state, buffer, ensemble, optimizer, config, bound_penalty_weight=0.01, is_cold=False
):
    """Fit once, compiled, without normalised targets."""
    return jax.jit(
        lambda key, state, buffer: fit.fit(
            key,
            state,
            buffer,
            ensemble,
            optimizer,
            config,
            bound_penalty_weight=bound_penalty_weight,
            normalize_targets=False,
            is_cold=is_cold,
        )
    )(key, state, buffer)
