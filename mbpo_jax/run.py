"""A run directory, opened: its rows, policies, model and episodes."""

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.termination import rule_of
from mbpo_jax.errors import ConfigError
from mbpo_jax.export import NUM_OBSERVATIONS, Format, export_policy
from mbpo_jax.files import read_rows
from mbpo_jax.models.ensemble import EnsembleState
from mbpo_jax.models.fitted import Model
from mbpo_jax.reports.figures import formats_of
from mbpo_jax.training import devices, logs, playback, run_directory
from mbpo_jax.training.beginning import BEST
from mbpo_jax.training.checkpoint import Restored
from mbpo_jax.training.group import Group
from mbpo_jax.training.layout import Setup, set_up
from mbpo_jax.training.playback import Played, Shown
from mbpo_jax.training.state import Learned, learned
from mbpo_jax.types import Env, EnvSpec

if TYPE_CHECKING:
    from pandas import DataFrame  # which takes its time to load

_INDEX = ("env_steps", "run", "seed")


class Policy:
    """A trained policy without its noise: observations `[..., O]` to actions `[..., A]`.

    Actions are in [-1, 1], which stand for the bounds of the environment. NumPy arrays and lists
    give NumPy arrays; JAX's give JAX's, so that it can be jitted, mapped and differentiated.

    Attributes:
      observation_size: `O`.
      action_size: `A`.
      act: the function of JAX's arrays.
    """

    def __init__(self, spec: EnvSpec, act: Callable[[jax.Array], jax.Array]) -> None:
        """Wrap a function of observations `[..., O]`."""
        self.observation_size, self.action_size = spec.observation_size, spec.action_size
        self.act, self._jitted = act, jax.jit(act)

    def __call__(self, observation: ArrayLike) -> Any:
        """Return the actions `[..., A]` float32 of observations `[..., O]`."""
        as_jax = isinstance(observation, jax.Array)
        rows: Any = observation if as_jax else np.asarray(observation, np.float32)
        if rows.shape[-1:] != (self.observation_size,):
            raise ValueError(
                f"observations have the shape {rows.shape}; the last axis has to be "
                f"{self.observation_size}"
            )
        return self.act(rows) if as_jax else np.asarray(self._jitted(rows))


class Run:
    """A run directory: one run, or several of one program that were trained side by side.

    Nothing but the configuration is read until it is asked for. What was learned comes from the
    newest good checkpoint, or is what did best in an evaluation (`best`); of many noisy
    evaluations the best one promises too much, so play again before you believe it.

    Attributes:
      path: of the directory.
      group: what is trained in it.
    """

    def __init__(self, opened: "_Opened", only: int | None = None) -> None:
        """Take a directory that `load` opened; `only` one of its runs is looked at, if given."""
        self.path, self.group = opened.path, opened.group
        self._opened, self._only = opened, only

    def __repr__(self) -> str:
        """Say in a line what it is."""
        config, seeds = self.config, self.seeds
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
        what = f"{config.algorithm} on {config.env.name}, {which}, {self.state}"
        return f"Run({str(self.path)!r}: {what})"

    @property
    def config(self) -> Config:
        """Return the configuration, of the run that is looked at or the first one."""
        return self.group.config if self._only is None else self.group.runs[self._only]

    @property
    def seeds(self) -> list[int]:
        """Return the seed of each run that is looked at."""
        return self.group.seeds if self._only is None else [self.group.seeds[self._only]]

    @property
    def state(self) -> str:
        """Return "finished", "interrupted", "diverged", "running", or "new" without a status."""
        state = run_directory.read_state(self.path) or "new"
        # Who was killed could not say so.
        gone = state == "running" and run_directory.holder(self.path) is None
        return "interrupted" if gone else state

    def select(self, *, seed: int | None = None, run: int | None = None) -> "Run":
        """Look at one run of several.

        Args:
          seed: its seed.
          run: or its place, counted from 0, where several have that seed.

        Raises:
          ConfigError: there is no such run, or more than one.
        """
        if (seed is None) == (run is None):
            raise ConfigError("seed: say which run by its seed or by its place (run=), not by both")
        if run is None:
            found = [i for i, own in enumerate(self.group.seeds) if own == seed]
            if self._only is not None:
                found = [i for i in found if i == self._only]
            if len(found) != 1:
                known = ", ".join(map(str, dict.fromkeys(self.seeds)))
                raise ConfigError(
                    f"seed: {len(found)} runs of {self.path} have the seed {seed}; "
                    + (f"it has {known}" if not found else "choose one by select(run=), from 0")
                )
            run = found[0]
        playback.check_run(self.group, run)
        if self._only not in (None, run):
            raise ConfigError(f"run: {run} is not looked at; select it of all runs")
        return Run(self._opened, run)

    @property
    def evals(self) -> "DataFrame":
        """Return a row for each evaluation and run: `env_steps`, `run`, `seed`, `return_mean`, ...

        Where runs differ in more than seeds, so do columns of that name.
        """
        return self._rows(logs.EVALS)

    @property
    def metrics(self) -> "DataFrame":
        """Return a row for each call of the compiled step and run, as `evals` does."""
        return self._rows(logs.METRICS)

    @property
    def gradients(self) -> "DataFrame":
        """Return what `track_gradients` measured, as `evals` does; empty if it did not."""
        return self._rows(logs.GRADIENTS)

    def policy(self, *, seed: int | None = None, best: bool = False) -> Policy:
        """Return the policy of a run.

        Args:
          seed: of the run; not needed where there is one.
          best: as it was in the best evaluation, not as it is now.

        Raises:
          ConfigError: there is no such run, no checkpoint, or no policy but a planner, which needs
            more than an observation: `play` lets it act.
        """
        one = self._one(seed)
        env = self._opened.setup.env
        act = make_algorithm(env, one.config).agent.deterministic
        if act is None:
            raise ConfigError(
                f"{one.config.algorithm} has no policy that acts on observations alone; use play()"
            )
        return Policy(env.spec, functools.partial(act, one._alone(best).agent))

    @property
    def model(self) -> Model:
        """Return the fitted ensemble of a run.

        Raises:
          ConfigError: there is none, or no checkpoint; there are several runs, of which `select`
            chooses one.
        """
        state = self._one(None)._alone(best=False).model
        if not isinstance(state, EnsembleState):
            oracle = ", which predicts with the true system" * (self.config.model == "oracle")
            raise ConfigError(
                f"{self.path} has no learned model: it is a run of {self.config.algorithm}{oracle}"
            )
        env = self._opened.setup.env
        known = rule_of(env, self.config.env.termination)
        return Model(env.spec, self.config.ensemble, state, learned_termination=known is None)

    def play(
        self,
        episodes: int = 10,
        *,
        seed: int | None = None,
        best: bool = False,
        start_seed: int = 0,
        record: bool = True,
    ) -> Played:
        """Play episodes without exploring.

        Args:
          episodes: how many.
          seed: of the run; not needed where there is one.
          best: as it was in the best evaluation, not as it is now.
          start_seed: of the initial states.
          record: keep their transitions, too.

        Returns:
          Returns, lengths and trajectories.

        Raises:
          ConfigError: there is no such run or no checkpoint.
        """
        one = self._one(seed)
        if episodes < 1:
            raise ConfigError(f"episodes: {episodes} is too small; use a value >= 1")
        key, env = jax.random.key(start_seed), self._opened.setup.env
        return playback.play(env, one.config, one._alone(best), key, episodes, record)

    def render(
        self,
        *,
        seed: int | None = None,
        best: bool = False,
        figure_format: str | Collection[str] = (),
    ) -> Shown:
        """Draw an episode: rollout.html and rollout.webp, or episode.png, in the directory.

        Args:
          seed: of the run; not needed where there is one.
          best: as it was in the best evaluation, not as it is now.
          figure_format: "pdf" or "svg", or both, in which episode.png is written, too.

        Raises:
          ConfigError: there is no such run or no checkpoint, or the environment's picture fails.
        """
        formats = formats_of(figure_format)
        one = self._one(seed)
        env = self._opened.setup.env
        return playback.render(env, one.config, self.path, one._alone(best), figure_format=formats)

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: Format = "onnx",
        seed: int | None = None,
        best: bool = False,
    ) -> Path:
        """Write the policy of a run into a file that runs without this package.

        It is compared with the policy on 1,000 observations that were met in training before it is
        there; what is known of it stands beside it, in a file of the same name with .json behind.

        Args:
          path: of the file; policy.onnx or policy.stablehlo in the directory if None.
          format: "onnx", or "stablehlo" as `jax.export` writes it.
          seed: of the run; not needed where there is one.
          best: as it was in the best evaluation, not as it is now.

        Returns:
          The path.

        Raises:
          ConfigError: as `policy`; or a library is missing.
          ExportError: the file would act otherwise than the policy.
        """
        one = self._one(seed)
        policy, spec, run = one.policy(best=best), self._opened.setup.env.spec, one._only or 0
        real = playback.of_run(self._opened.restored().state.replay, run)
        facts = {
            "algorithm": one.config.algorithm,
            "environment": one.config.env.name,
            "run": str(self.path),
            "seed": one.seeds[0],
            "env_steps": one.env_steps(best=best),
            "is_best_evaluated": best,
            "action_scale": spec.action_scale or [1.0] * spec.action_size,
        }
        return export_policy(
            policy.act,
            spec.observation_size,
            spec.action_size,
            self.path / f"policy.{format}" if path is None else Path(path),
            format=format,
            facts=facts,
            observations=_observations(np.asarray(real.data.observation)[: int(real.size)]),
        )

    def learned(self, best: bool = False) -> Learned:
        """Return what the runs that are looked at have learned, `[R, ...]`.

        Raises:
          ConfigError: there is no checkpoint, or it does not know what did best.
        """
        rows = (
            slice(len(self.group.runs)) if self._only is None else slice(self._only, self._only + 1)
        )
        return jax.tree.map(lambda x: jnp.asarray(jax.device_get(x)[rows]), self._of_all(best))

    def env_steps(self, *, best: bool = False) -> int:
        """Return the environment steps of what was learned."""
        restored = self._opened.restored()
        return restored.host["best"][self._only or 0]["env_steps"] if best else restored.env_steps

    def _of_all(self, best: bool) -> Learned:
        """Return what all runs have learned, and copies behind them, as it was restored."""
        restored = self._opened.restored()
        found = restored.aside.get(BEST) if best else learned(restored.state)
        if found is None or (best and not restored.host.get("best")):
            raise ConfigError(
                f"{self.path} does not hold what did best: it was not evaluated yet, or by an "
                "earlier version; train it on, or leave best out"
            )
        return found

    def _alone(self, best: bool) -> Learned:
        """Return what the run that is looked at has learned, or the first one."""
        return playback.of_run(self._of_all(best), self._only or 0)

    def _one(self, seed: int | None) -> "Run":
        """Return the run of a seed, or the only one."""
        if seed is None and len(self.seeds) == 1:
            return self
        if seed is None:
            known = ", ".join(map(str, dict.fromkeys(self.seeds)))
            raise ConfigError(f"seed: {self.path} has several runs; choose a seed of: {known}")
        return self.select(seed=seed)

    def _rows(self, name: str) -> "DataFrame":
        import pandas as pd

        path = self.path / name
        rows = read_rows(path) if path.exists() else []
        rows = [row for row in rows if self._only in (None, row["run"])]
        varied = [dict(list(row.items())[1:]) for row in self.group.differences()]
        frame = pd.DataFrame([{**row, **varied[row["run"]]} for row in rows])
        return frame if len(frame) else pd.DataFrame(columns=list(_INDEX))


def _observations(met: np.ndarray) -> np.ndarray:
    """Return 1,000 observations that were met `[N, O]`, or else, for the rest, ones like them."""
    missing, rng = max(NUM_OBSERVATIONS - len(met), 0), np.random.default_rng(0)
    drawn = rng.standard_normal((missing, met.shape[1]))
    if len(met):
        drawn = met.mean(axis=0) + met.std(axis=0) * drawn
    return np.concatenate([met[-NUM_OBSERVATIONS:], drawn]).astype(np.float32)


def open_run(path: Path, env: Env | None = None) -> Run:
    """Open a run directory; see `api.load`."""
    return Run(_Opened(path, run_directory.load_group(path), env))


class _Opened:
    """A run directory whose environment is made, and whose newest checkpoint is read, once."""

    def __init__(self, path: Path, group: Group, env: Env | None) -> None:
        self.path, self.group, self._env = path, group, env
        self._read: tuple[list[Path], Restored] | None = None

    @functools.cached_property
    def setup(self) -> Setup:
        devices.use_host_devices(len(self.group.runs))
        return set_up(self.group, self._env)

    def restored(self) -> Restored:
        """Return the newest good checkpoint; one that was written since is read anew."""
        there = run_directory.checkpoints(self.path / run_directory.CHECKPOINTS)
        if self._read is None or self._read[0] != there:
            self._read = there, playback.load_checkpoint(self.path, self.setup)
        return self._read[1]
