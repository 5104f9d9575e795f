"""Looking at a trained policy: evaluating it again, and playing an episode to be watched."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs import analytic, brax_rendering, make_env
from mbpo_jax.envs.base import episode_limit, play_episodes
from mbpo_jax.errors import ConfigError
from mbpo_jax.reports import animation, viewer
from mbpo_jax.reports.episode import episode_curves
from mbpo_jax.training import checkpoint, devices, run_directory
from mbpo_jax.training.compiled import make_runs, state_shapes
from mbpo_jax.training.group import Group
from mbpo_jax.training.loop import TrainState, acting, make_program
from mbpo_jax.trees import all_finite
from mbpo_jax.types import PyTree


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
      steps: what its picture is made of, stacked, `[T, ...]`: transitions on the analytic backend,
        Brax's pipeline states on the others.
      total_reward: its undiscounted return.
    """

    steps: PyTree
    total_reward: float


def load_state(run_dir: Path, group: Group) -> tuple[TrainState, int]:
    """Load the newest good checkpoint of a run directory.

    Returns:
      The state of all runs, and their environment steps.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: every checkpoint is corrupt.
    """
    shapes = state_shapes(make_program(make_env(group.config.env)), make_runs(group))
    restored, problems = checkpoint.restore_newest(
        run_dir / run_directory.CHECKPOINTS, shapes, len(group.runs)
    )
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
    config: Config, state: TrainState, run: int, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Play episodes with the deterministic policy of one run.

    Returns:
      Returns and lengths of the episodes, each `[episodes]`.
    """
    env = make_env(config.env)
    algorithm = make_algorithm(env, config)

    @jax.jit
    def play(learned: Learned, key: jax.Array):
        return play_episodes(env, *acting(algorithm, *learned), key, episodes)

    return jax.device_get(play(run_learned(state, run), jax.random.key(seed)))


def play_episode(config: Config, learned: Learned, key: jax.Array) -> Episode:
    """Play one episode without exploring and keep what its picture is made of.

    Args:
      config: of the run.
      learned: by one run.
      key: of the episode.
    """
    env = make_env(config.env)
    algorithm = make_algorithm(env, config)
    keeps_poses = has_viewer(config)

    @jax.jit
    def play(learned: Learned, key: jax.Array):
        begin, act = acting(algorithm, *learned)

        def step(carry, key):
            state, memory = carry
            act_key, env_key = jax.random.split(key)
            action, memory = act(act_key, memory, state)
            state, transition = env.step(env_key, state, action)
            kept = state.simulator.pipeline_state if keeps_poses else transition
            finite = all_finite(transition)
            return (state, memory), (kept, transition.reward, finite, state.done | ~finite)

        reset_key, steps_key = jax.random.split(key)
        keys = jax.random.split(steps_key, episode_limit(env.spec))
        return jax.lax.scan(step, (env.reset(reset_key), begin()), keys)[1]

    steps, rewards, finite, done = jax.device_get(play(learned, key))
    last = int(np.argmax(done))  # The time limit is the last step at the latest.
    length = last + int(finite[last])
    # One step is shown in any case.
    shown = jax.tree.map(lambda x: x[: max(length, 1)], steps)
    return Episode(shown, float(np.sum(rewards[:length])))


def has_viewer(config: Config) -> bool:
    """Return whether Brax's viewer shows the environment."""
    return config.env.backend not in analytic.BACKENDS


def picture_name(config: Config) -> str:
    """Return the name of the file that shows an episode."""
    return "rollout.html" if has_viewer(config) else "episode.png"


def render(config: Config, run_dir: Path, state: TrainState, run: int, seed: int = 0) -> list[str]:
    """Show one episode in a run directory, in the file that `picture_name` names.

    On the analytic backend it holds curves, on the others Brax's viewer. Beside the viewer there is
    `rollout.webp` where pictures can be drawn.

    Args:
      config: of the runs.
      run_dir: where the files go.
      state: of all runs.
      run: whose policy plays.
      seed: of the episode.

    Returns:
      What the user should know of it, line by line.
    """
    episode = play_episode(config, run_learned(state, run), jax.random.key(seed))
    spec = make_env(config.env).spec
    path = run_dir / picture_name(config)
    title = f"{config.algorithm.upper()} on {config.env.name}: return {episode.total_reward:,.1f}"
    if not has_viewer(config):
        episode_curves(path, spec, episode.steps, title)
        return []
    described = config.env.name, config.env.backend, episode.steps, spec.dt
    viewer.write_html(path, brax_rendering.viewer_json(*described), title)
    try:
        animation.write_animation(run_dir / "rollout.webp", *described)
    except animation.RenderingUnavailable as reason:
        return [str(reason)]
    return []


def evaluate_run(run_dir: Path, episodes: int, seed: int) -> int:
    """Evaluate the policies of a run directory's newest checkpoint and print their returns.

    Raises:
      ConfigError: it is no run directory, or it has no checkpoint.
    """
    group = run_directory.load_group(run_dir)
    devices.use_host_devices(len(group.runs))
    state, env_steps = load_state(run_dir, group)
    for run, run_seed in enumerate(group.seeds):
        returns, lengths = evaluate(group.runs[run], state, run, episodes, seed)
        print(
            f"run {run} (seed {run_seed}) at {env_steps:,} steps: return {np.mean(returns):,.1f} "
            f"± {np.std(returns):,.1f} over {episodes} episodes, length {np.mean(lengths):,.0f}"
        )
    return 0


def render_run(run_dir: Path, run: int) -> int:
    """Show an episode of a run directory's newest checkpoint, and say in which file.

    Raises:
      ConfigError: it is no run directory, or it has no such run or no checkpoint.
    """
    group = run_directory.load_group(run_dir)
    check_run(group, run)
    devices.use_host_devices(len(group.runs))
    state, _ = load_state(run_dir, group)
    for line in render(group.runs[run], run_dir, state, run):
        print(line)
    print(f"see {run_dir / picture_name(group.config)}")
    return 0
