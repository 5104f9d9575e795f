"""Looking at a trained policy: evaluating it again, and playing an episode to be watched."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, ConfigError
from mbpo_jax.envs import brax_rendering, make_env
from mbpo_jax.envs.base import episode_limit, play_episodes
from mbpo_jax.reports import animation, viewer
from mbpo_jax.training import checkpoint, devices, run_directory
from mbpo_jax.training.compiled import make_runs, seeds, state_shapes
from mbpo_jax.training.loop import TrainState, make_program
from mbpo_jax.types import PyTree


class Episode(NamedTuple):
    """An episode as it was played.

    Attributes:
      states: the simulator's pipeline states, stacked, `[T, ...]`.
      total_reward: its undiscounted return.
    """

    states: PyTree
    total_reward: float


def load_state(run_dir: Path, config: Config) -> tuple[TrainState, int]:
    """Load the newest good checkpoint of a run directory.

    Returns:
      The state of all runs, and their environment steps.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: every checkpoint is corrupt.
    """
    shapes = state_shapes(make_program(make_env(config.env)), make_runs(config))
    restored, problems = checkpoint.restore_newest(run_dir / run_directory.CHECKPOINTS, shapes)
    for problem in problems:
        print(f"warning: {problem}")
    if restored is None:
        raise ConfigError(f"{run_dir} has no checkpoint yet; train it first")
    return restored.state, restored.env_steps


def run_agent(state: TrainState, run: int) -> PyTree:
    """Take the agent of one run out of the state of all, off the mesh."""
    return jax.tree.map(lambda x: jnp.asarray(jax.device_get(x)[run]), state.agent)


def evaluate(
    config: Config, state: TrainState, run: int, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Play episodes with the deterministic policy of one run.

    Returns:
      Returns and lengths of the episodes, each `[episodes]`.
    """
    env = make_env(config.env)
    agent = make_algorithm(env.spec, config).agent

    @jax.jit
    def play(agent_state: PyTree, key: jax.Array):
        def policy(_, observation):
            return agent.mode_action(agent_state, observation)

        return play_episodes(env, policy, key, episodes)

    return jax.device_get(play(run_agent(state, run), jax.random.key(seed)))


def play_episode(config: Config, agent_state: PyTree, key: jax.Array) -> Episode:
    """Play one episode with the deterministic policy and keep what the simulator went through.

    Args:
      config: of the run.
      agent_state: of one run.
      key: of the episode.
    """
    env = make_env(config.env)
    agent = make_algorithm(env.spec, config).agent

    @jax.jit
    def play(agent_state: PyTree, key: jax.Array):
        def step(state, key):
            action = agent.mode_action(agent_state, state.observation)
            state, transition = env.step(key, state, action)
            return state, (state.simulator.pipeline_state, transition.reward, state.done)

        reset_key, steps_key = jax.random.split(key)
        keys = jax.random.split(steps_key, episode_limit(env.spec))
        return jax.lax.scan(step, env.reset(reset_key), keys)[1]

    states, rewards, done = jax.device_get(play(agent_state, key))
    length = int(np.argmax(done)) + 1  # The time limit is the last step at the latest.
    return Episode(jax.tree.map(lambda x: x[:length], states), float(np.sum(rewards[:length])))


def render(config: Config, run_dir: Path, state: TrainState, run: int, seed: int = 0) -> list[str]:
    """Write `rollout.html` and, where pictures can be drawn, `rollout.webp` of one episode.

    Args:
      config: of the runs.
      run_dir: where the files go.
      state: of all runs.
      run: whose policy plays.
      seed: of the episode.

    Returns:
      What the user should know of it, line by line.
    """
    episode = play_episode(config, run_agent(state, run), jax.random.key(seed))
    env = make_env(config.env)
    title = f"{config.algorithm.upper()} on {config.env.name}: return {episode.total_reward:,.1f}"
    described = config.env.name, config.env.backend, episode.states, env.spec.dt
    viewer.write_html(run_dir / "rollout.html", brax_rendering.viewer_json(*described), title)
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
    config = run_directory.load_config(run_dir)
    devices.use_host_devices(config.num_seeds)
    state, env_steps = load_state(run_dir, config)
    for run, run_seed in enumerate(seeds(config)):
        returns, lengths = evaluate(config, state, run, episodes, seed)
        print(
            f"run {run} (seed {run_seed}) at {env_steps:,} steps: return {np.mean(returns):,.1f} "
            f"± {np.std(returns):,.1f} over {episodes} episodes, length {np.mean(lengths):,.0f}"
        )
    return 0


def render_run(run_dir: Path, run: int) -> int:
    """Write `rollout.html` and `rollout.webp` of a run directory's newest checkpoint.

    Raises:
      ConfigError: it is no run directory, or it has no such run or no checkpoint.
    """
    config = run_directory.load_config(run_dir)
    if not 0 <= run < config.num_seeds:
        raise ConfigError(f"run: {run} is not there; use 0 to {config.num_seeds - 1}")
    devices.use_host_devices(config.num_seeds)
    state, _ = load_state(run_dir, config)
    for line in render(config, run_dir, state, run):
        print(line)
    print(f"see {run_dir / 'rollout.html'}")
    return 0
