"""Presets of the analytic environments, small enough for two CPU cores.

Sources:
  [Gym] the time limit of Pendulum-v1.
  [book] Sutton and Barto 2018, chapter 8.
  [Zhang] S. Zhang's public reproduction of the book's figures; the book does not print these.
  [equal_updates] the experiment of this name (experiments/README.md): the smallest share of real
    rows with which MBPO was no worse than SAC.
  [rule] target entropy -|A| / 2, where |A| is the number of action components.
  [ours] chosen here; not tuned, but for `cartpole` and `lq`, after about ten short runs of each.
"""

from typing import Any

from mbpo_jax.presets.base import Preset


def _env(name: str, episode_length: int) -> dict[str, Any]:
    return {"name": name, "backend": "analytic", "episode_length": episode_length}


# [ours], all of them. A fit and an update take a small part of the time the defaults take. Targets
# are scaled, because rewards are large and steps are small; and a fit has to take some time, as
# with so few transitions an epoch is a few gradient steps, after some of which it would be given
# up.
_ENSEMBLE = {"hidden_sizes": (128, 128), "normalize_targets": True}
_FIT = {"weight_decays": (2.5e-5, 5e-5, 1e-4), "batch_size": 64, "min_steps": 1000}
_ROLLOUT = {"rollouts_per_step": 100}
_SMALL = {"ensemble": _ENSEMBLE, "fit": _FIT, "rollout": _ROLLOUT}
_SMALL_SAC = {"utd_ratio": 10, "hidden_sizes": (64, 64), "target_entropy": -0.5}  # [ours]; [rule]

# [ours]: rewards are at most 1, and next to them an entropy of 1 nat is much.
_SWING_UP_SAC = {**_SMALL_SAC, "learning_rate": 1e-3, "initial_alpha": 0.1}

# [ours]: the host looks often, as such runs are short.
_FREQUENT = {"steps_per_fit": 50, "epoch_length": 50, "eval_every": 100, "checkpoint_every": 500}

# Where walls change, an evaluation starts before the change: look at `train/reward` instead, the
# mean reward of a training step.
_MAZE = {
    **_FREQUENT,
    "algorithm": "dyna_q",
    "random_steps": 0,
    "eval_episodes": 1,  # nothing in a maze is random
}

_PROBE = {
    **_SMALL,
    **_FREQUENT,
    "total_env_steps": 1000,  # [ours]
    "random_steps": 100,  # [ours]
    # [ours]; [rule]. With next to no entropy, values are those of the plain return.
    "sac": {**_SMALL_SAC, "learning_rate": 3e-3, "initial_alpha": 0.01},
}

ANALYTIC_PRESETS = {
    "pendulum": Preset(
        "swing-up, 5,000 steps",
        {
            **_SMALL,
            "env": _env("pendulum", 200),  # [Gym]
            "sac": _SMALL_SAC,
            "rollout": {**_ROLLOUT, "real_ratio": 0.75},  # [equal_updates]
        },
    ),
    "cartpole": Preset(
        "swing-up, 10,000 steps",
        {
            **_SMALL,
            "env": _env("cartpole", 200),  # [ours], 8 seconds
            "total_env_steps": 10_000,  # [ours]
            "sac": _SWING_UP_SAC,
            "rollout": {**_ROLLOUT, "real_ratio": 0.5},  # [equal_updates]
        },
    ),
    "double_pendulum": Preset(
        "swing-up, 20,000 steps",
        {
            **_SMALL,
            "env": _env("double_pendulum", 200),  # [ours], 10 seconds
            "total_env_steps": 20_000,  # [ours]
            "sac": {**_SWING_UP_SAC, "target_entropy": -1.0},  # [rule]
        },
    ),
    "lq": Preset(
        "a linear system with quadratic costs, 2,000 steps",
        {
            **_SMALL,
            **_FREQUENT,
            "env": _env("lq", 20),  # its horizon
            "total_env_steps": 2000,  # [ours]
            "random_steps": 200,  # [ours]
            # [ours]; the cost is not discounted, and next to it an entropy of 1 nat is much.
            "sac": {**_SMALL_SAC, "gamma": 1.0, "learning_rate": 1e-3, "initial_alpha": 0.1},
            # [ours]: costs of random actions grow to hundreds, and the model's errors with them.
            "rollout": {**_ROLLOUT, "real_ratio": 0.5},
            "policy_search": {"gamma": 1.0},
            "planner": {"horizon": 5, "population": 100, "num_elites": 10},  # [ours]
            "ilqr": {"horizon": 20, "replan_every": 20},  # one plan for the whole of an episode
        },
    ),
    "chaotic_rnn": Preset(
        "a chaotic recurrent network, 5,000 steps",
        {
            **_SMALL,
            "env": _env("chaotic_rnn", 100),  # its horizon
            "sac": {**_SMALL_SAC, "gamma": 1.0},  # the loss is not discounted
            "policy_search": {"gamma": 1.0},
            "planner": {"horizon": 100},  # all is paid at the end
            "ilqr": {"horizon": 100, "replan_every": 100},
        },
    ),
    "maths_test": Preset(
        "a test that only those should accept who will see the question, 2,000 steps",
        {
            **_SMALL,
            **_FREQUENT,
            "env": _env("maths_test", 2),  # its longest episode
            "total_env_steps": 2000,  # [ours]
            "random_steps": 200,  # [ours]
            "eval_episodes": 100,  # [ours]
            "sac": {**_SMALL_SAC, "gamma": 1.0, "learning_rate": 3e-3},  # [ours]
            "policy_search": {"gamma": 1.0, "horizon": 2},
            # [ours]. To guess is worth -500 with a standard deviation of 1500, which the mean over
            # these many questions does not take for a gain.
            "planner": {
                "horizon": 2,
                "population": 64,
                "num_elites": 8,
                "num_particles": 400,
            },
            "ilqr": {"horizon": 2, "replan_every": 2},
        },
    ),
    "maze": Preset(
        "the maze of example 8.1, 3,000 steps",
        {
            **_MAZE,
            # [ours]: only one in 500 random walks to the goal is longer.
            "env": _env("maze", 5000),
            "total_env_steps": 3000,  # [ours], about 100 episodes
            "tabular": {
                "planning_steps": 5,
                "step_size": 0.1,
                "epsilon": 0.1,
                "gamma": 0.95,
            },  # [book]
        },
    ),
    "blocking_maze": Preset(
        "the blocking maze of example 8.2, 3,000 steps",
        {
            **_MAZE,
            "env": _env("blocking_maze", 3000),  # [book]
            "total_env_steps": 3000,  # [book]
            # [Zhang]
            "tabular": {"planning_steps": 10, "step_size": 1.0, "bonus": 1e-4},
        },
    ),
    "shortcut_maze": Preset(
        "the shortcut maze of example 8.3, 6,000 steps",
        {
            **_MAZE,
            "env": _env("shortcut_maze", 6000),  # [book]
            "total_env_steps": 6000,  # [book]
            # [Zhang]
            "tabular": {"planning_steps": 50, "step_size": 1.0, "bonus": 1e-3},
        },
    ),
    **{
        f"probe_{name}": Preset(
            f"a probe: {needs}, 1,000 steps", {**_PROBE, "env": _env(f"probe_{name}", 10)}
        )
        for name, needs in {
            "constant": "one step, always the same reward",
            "observation": "one step, its reward is observed",
            "delayed": "two steps, the second is rewarded",
            "action": "one step, one action is best",
            "endless": "the same reward for ever",
        }.items()
    },
}
