"""Looking at a trained policy: evaluating it again, and playing an episode to be watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.base import episode_limit, play_episodes
from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.reports import animation, viewer
from mbpo_jax.reports.episode import episode_curves
from mbpo_jax.training import devices, run_directory
from mbpo_jax.training.compiled import Setup, restore_runs, set_up
from mbpo_jax.training.group import Group
from mbpo_jax.training.loop import TrainState, acting
from mbpo_jax.trees import all_finite
from mbpo_jax.types import Env, PyTree, Transition


class Learned(NamedTuple):
    """What a run has learned.

    Attributes:
      model: state of its model.
      agent: state of its agent.
    """

    model: PyTree
    agent: PyTree


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


class Shown(NamedTuple):
    """What came of showing an episode.

    Attributes:
      path: of the file to look at.
      notes: what the user should know of it, line by line.
    """

    path: Path
    notes: list[str]


def load_state(run_dir: Path, setup: Setup) -> tuple[TrainState, int]:
    """Load the newest good checkpoint of a run directory.

    Returns:
      The state of all runs, and their environment steps.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: every checkpoint is corrupt.
    """
    restored, problems = restore_runs(run_dir, setup)
    for problem in problems:
        print(f"warning: {problem}")
    if restored is None:
        raise ConfigError(f"{run_dir} has no checkpoint yet; train it first")
    return restored.state, restored.env_steps


def run_learned(state: TrainState, run: int) -> Learned:
    """Take model and agent of one run out of the state of all, off the mesh."""
    return of_run(Learned(state.model, state.agent), run)


def of_run(tree: PyTree, run: int) -> PyTree:
    """Take one run out of arrays `[R, ...]`, off the mesh."""
    return jax.tree.map(lambda x: jnp.asarray(jax.device_get(x)[run]), tree)


def check_run(group: Group, run: int) -> None:
    """Raise a ConfigError if there is no such run."""
    if not 0 <= run < len(group.runs):
        raise ConfigError(f"run: {run} is not there; use 0 to {len(group.runs) - 1}")


def evaluate(
    env: Env, config: Config, state: TrainState, run: int, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Play episodes with the deterministic policy of one run.

    Returns:
      Returns and lengths of the episodes, each `[episodes]`.
    """
    algorithm = make_algorithm(env, config)

    @jax.jit
    def play(learned: Learned, key: jax.Array):
        return play_episodes(env, *acting(algorithm, *learned), key, episodes)

    return jax.device_get(play(run_learned(state, run), jax.random.key(seed)))


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
    def play(learned: Learned, key: jax.Array):
        begin, act = acting(algorithm, *learned)

        def step(carry, key):
            state, memory = carry
            act_key, env_key = jax.random.split(key)
            action, memory = act(act_key, memory, state)
            state, transition = env.step(env_key, state, action)
            finite = all_finite(transition)
            kept = transition, frame(state)
            return (state, memory), (kept, finite, state.done | ~finite)

        reset_key, steps_key = jax.random.split(key)
        keys = jax.random.split(steps_key, episode_limit(env.spec))
        return jax.lax.scan(step, (env.reset(reset_key), begin()), keys)[1]

    steps, finite, done = jax.device_get(play(learned, key))
    last = int(np.argmax(done))  # The time limit is the last step at the latest.
    length = last + int(finite[last])
    # One step is shown in any case.
    transitions, frames = jax.tree.map(lambda x: x[: max(length, 1)], steps)
    return Episode(transitions, frames, float(np.sum(transitions.reward[:length])))


def render(
    env: Env, config: Config, run_dir: Path, state: TrainState, run: int, seed: int = 0
) -> Shown:
    """Show one episode in a run directory.

    What Brax's viewer can show is in `rollout.html`; beside it, or alone, there is `rollout.webp`
    where pictures can be drawn. Without any of them, `episode.png` has curves.

    Args:
      env: the environment.
      config: of the run.
      run_dir: where the files go.
      state: of all runs.
      run: whose policy plays.
      seed: of the episode.

    Raises:
      ConfigError: the environment's `Picture` is at fault.
    """
    episode = play_episode(env, config, run_learned(state, run), jax.random.key(seed))
    title = f"{config.title} on {config.env.name}: return {episode.total_reward:,.1f}"
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
        episode_curves(paths[0], env.spec, episode.transitions, title)
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


def evaluate_run(run_dir: Path, episodes: int, seed: int, env: Env | None = None) -> int:
    """Evaluate the policies of a run directory's newest checkpoint and print their returns.

    Args:
      run_dir: the directory.
      episodes: of each run.
      seed: of the initial states.
      env: the runs' environment; the one that their configuration names if None.

    Raises:
      ConfigError: it is no run directory, or it has no checkpoint.
    """
    group = run_directory.load_group(run_dir)
    devices.use_host_devices(len(group.runs))
    setup = set_up(group, env)
    state, env_steps = load_state(run_dir, setup)
    for run, run_seed in enumerate(group.seeds):
        returns, lengths = evaluate(setup.env, group.runs[run], state, run, episodes, seed)
        print(
            f"run {run} (seed {run_seed}) at {env_steps:,} steps: return {np.mean(returns):,.1f} "
            f"± {np.std(returns):,.1f} over {episodes} episodes, length {np.mean(lengths):,.0f}"
        )
    return 0


def render_run(run_dir: Path, run: int, env: Env | None = None) -> int:
    """Show an episode of a run directory's newest checkpoint, and say in which file.

    Args:
      run_dir: the directory.
      run: whose policy plays.
      env: the runs' environment; the one that their configuration names if None.

    Raises:
      ConfigError: it is no run directory, or it has no such run or no checkpoint.
    """
    group = run_directory.load_group(run_dir)
    check_run(group, run)
    devices.use_host_devices(len(group.runs))
    setup = set_up(group, env)
    state, _ = load_state(run_dir, setup)
    shown = render(setup.env, group.runs[run], run_dir, state, run)
    for line in shown.notes:
        print(line)
    print(f"see {shown.path}")
    return 0
