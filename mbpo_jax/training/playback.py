"""Looking at a trained policy: playing episodes, to be counted or to be watched."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.reports import animation, viewer
from mbpo_jax.reports.episode import episode_figure
from mbpo_jax.reports.figures import save_figure
from mbpo_jax.training.beginning import restore_runs
from mbpo_jax.training.checkpoint import Restored
from mbpo_jax.training.group import Group
from mbpo_jax.training.layout import Setup
from mbpo_jax.training.loop import acting
from mbpo_jax.training.state import Learned
from mbpo_jax.types import Env, EnvState, PyTree, Transition


class Episode(NamedTuple):
    """An episode as it was played.

    Attributes:
      transitions: `[T, ...]`, without states of the simulator.
      frames: what `Picture.frame` kept of the states they led to, `[T, ...]`; () without pictures.
      total_reward: its undiscounted return.
    """

    transitions: Transition
    frames: PyTree
    total_reward: float


class Played(NamedTuple):
    """Episodes as they were played.

    Attributes:
      returns: undiscounted, `[episodes]` float32.
      lengths: in actions, `[episodes]`.
      trajectories: the transitions of each, `[length, ...]`; none if they were not recorded.
    """

    returns: np.ndarray
    lengths: np.ndarray
    trajectories: list[Transition]


class Shown(NamedTuple):
    """What came of showing an episode.

    Attributes:
      path: of the file to look at.
      notes: what the user should know of it, line by line.
    """

    path: Path
    notes: list[str]


def load_checkpoint(run_dir: Path, setup: Setup) -> Restored:
    """Load the newest good checkpoint of a run directory.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: every checkpoint is corrupt.
    """
    restored, problems = restore_runs(run_dir, setup)
    for problem in problems:
        print(f"warning: {problem}")
    if restored is None:
        raise ConfigError(f"{run_dir} has no checkpoint yet; train it first")
    return restored


def of_run(tree: PyTree, run: int) -> PyTree:
    """Take one run out of arrays `[R, ...]`, off the mesh."""
    return jax.tree.map(lambda x: jnp.asarray(jax.device_get(x)[run]), tree)


def check_run(group: Group, run: int) -> None:
    """Raise a ConfigError if there is no such run."""
    if not 0 <= run < len(group.runs):
        raise ConfigError(f"run: {run} is not there; use 0 to {len(group.runs) - 1}")


def play(
    env: Env, config: Config, learned: Learned, key: jax.Array, episodes: int, record: bool = True
) -> Played:
    """Play episodes without exploring.

    Args:
      env: the environment.
      config: of the run.
      learned: by one run.
      key: a key, used up.
      episodes: how many, side by side.
      record: keep their transitions, too.
    """
    algorithm = make_algorithm(env, config)

    @jax.jit
    def made(learned: Learned, key: jax.Array):
        keep = (lambda transition, _: transition) if record else (lambda *_: ())
        return play_episodes(env, *acting(algorithm, *learned), key, episodes, keep)

    returns, lengths, steps = jax.device_get(made(learned, key))
    trajectories = [
        jax.tree.map(lambda x, i=i, end=int(length): x[:end, i], steps)
        for i, length in enumerate(lengths if record else ())
    ]
    return Played(returns, lengths.astype(int), trajectories)


def play_episode(env: Env, config: Config, learned: Learned, key: jax.Array) -> Episode:
    """Play one episode without exploring and keep what its picture is made of.

    Args:
      env: the environment.
      config: of the run.
      learned: by one run.
      key: of the episode.
    """
    algorithm = make_algorithm(env, config)
    frame = _faults_named(env)(env.picture.frame) if env.picture else lambda state: ()

    @jax.jit
    def played(learned: Learned, key: jax.Array):
        def keep(transition: Transition, state: EnvState):
            return transition, frame(state)

        return play_episodes(env, *acting(algorithm, *learned), key, 1, keep)

    (total,), (length,), steps = jax.device_get(played(learned, key))
    # One step is shown in any case.
    transitions, frames = jax.tree.map(lambda x: x[: max(int(length), 1), 0], steps)
    return Episode(transitions, frames, float(total))


def render(
    env: Env,
    config: Config,
    run_dir: Path,
    learned: Learned,
    seed: int = 0,
    figure_format: Collection[str] = (),
) -> Shown:
    """Show one episode in a run directory.

    What Brax's viewer can show is in `rollout.html`; beside it, or alone, there is `rollout.webp`
    where pictures can be drawn. Without any of them, `episode.png` has curves.

    Args:
      env: the environment.
      config: of the run.
      run_dir: where the files go.
      learned: by one run.
      seed: of the episode.
      figure_format: formats of `episode.png` besides PNG.

    Raises:
      ConfigError: the environment's `Picture` is at fault.
    """
    episode = play_episode(env, config, learned, jax.random.key(seed))
    run = f"{config.title} on {config.env.name}, seed {config.seed}"
    title = f"{run}: return {episode.total_reward:,.1f}"
    picture, dt = env.picture, env.spec.dt
    paths, notes = [], []
    with _faults_named(env):
        if picture and picture.viewer:
            paths.append(run_dir / "rollout.html")
            viewer.write_html(paths[0], picture.viewer(episode.frames, dt), title)
        if picture:
            path, positions = run_dir / "rollout.webp", picture.positions(episode.frames)
            try:
                animation.write_animation(path, picture.model(), positions, dt)
                paths.append(path)
            except animation.RenderingUnavailable as reason:
                notes.append(str(reason))
    if not paths:
        paths.append(run_dir / "episode.png")
        figure = episode_figure(env.spec, episode.transitions, title)
        save_figure(paths[0], figure, figure_format)
    return Shown(paths[0], notes)


@contextmanager
def _faults_named(env: Env) -> Iterator[None]:
    """Tell what the functions of an environment's picture raise as a fault of that picture."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever an environment of one's own does
        raise ConfigError(
            f"the picture of {env.spec.name} failed: {type(error).__name__}: {error}; mend its "
            "Env.picture, or set it to None to see curves"
        ) from error
