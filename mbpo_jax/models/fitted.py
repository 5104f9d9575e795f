"""A fitted ensemble, for whoever asks it from outside."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from mbpo_jax.config import EnsembleConfig
from mbpo_jax.models.diagnostics import predict_all
from mbpo_jax.models.ensemble import EnsembleState, make_ensemble
from mbpo_jax.types import EnvSpec


class Predicted(NamedTuple):
    """What each member of an ensemble expects of a step.

    Attributes:
      mean: `[E, ..., 1 + O]`, of the reward first, then of the next observation.
      std: `[E, ..., 1 + O]`, of the noise.
    """

    mean: Any
    std: Any


class Model:
    """A fitted ensemble.

    Attributes:
      num_members: `E`.
      elites: `[num_elites]`, the members with which rollouts are made.
    """

    def __init__(
        self,
        spec: EnvSpec,
        config: EnsembleConfig,
        state: EnsembleState,
        *,
        learned_termination: bool,
    ) -> None:
        """Take the state of one run's ensemble."""
        ensemble = make_ensemble(
            spec,
            config,
            optax.adam(0.0),  # it is trained no more
            learned_termination=learned_termination,
        )
        self.num_members = config.num_members
        self.elites = np.asarray(state.elites)
        self._spec = spec

        def predict(observation: jax.Array, action: jax.Array) -> Predicted:
            lead = observation.shape[:-1]
            rows = (x.reshape(-1, x.shape[-1]) for x in (observation, action))
            found = predict_all(ensemble, state, *rows)
            return Predicted(*(x.reshape(len(x), *lead, -1) for x in (found.mean, found.std)))

        self._predict = jax.jit(predict)

    def predict(self, observation: ArrayLike, action: ArrayLike) -> Predicted:
        """Return what each member expects of steps from observations with actions.

        Args:
          observation: `[..., O]`.
          action: `[..., A]` in [-1, 1], with the same leading axes.

        Returns:
          Means and standard deviations `[E, ..., 1 + O]` float32, in the environment's units; NumPy
          arrays unless both arguments are JAX's. The spread of the means over `E` tells how much
          the members disagree.
        """
        as_jax = isinstance(observation, jax.Array) and isinstance(action, jax.Array)
        rows = [jnp.asarray(x, jnp.float32) for x in (observation, action)]
        sizes = self._spec.observation_size, self._spec.action_size
        shapes = [x.shape for x in rows]
        if tuple(s[-1:] for s in shapes) != tuple((n,) for n in sizes) or (
            shapes[0][:-1] != shapes[1][:-1]
        ):
            raise ValueError(
                f"observations and actions have the shapes {shapes[0]} and {shapes[1]}; the last "
                f"axes have to be {sizes[0]} and {sizes[1]}, the others equal"
            )
        found = self._predict(*rows)
        return found if as_jax else Predicted(*map(np.asarray, found))
