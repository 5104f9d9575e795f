"""mbrl-lib's side of the end-to-end comparison; started by `end_to_end` in the peer's environment.

Its loop, `mbrl.algorithms.mbpo.train`, evaluates and writes to the disk as it goes and cannot be
stopped between two fits, so it is made here of the same calls in the same order. Besides evaluation
and disk, left out are its logger and the reset of the environment every 1,000 steps. Single
precision throughout and the reference's configuration, as in `mbrl_lib_worker`; the policy acts
with its noise, where that loop takes its mean.
"""

import collections
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import torch
from mbrl.algorithms.mbpo import rollout_model_and_populate_sac_buffer
from mbrl.env import termination_fns
from mbrl.models import ModelEnv, ModelTrainer
from mbrl.planning import RandomAgent
from mbrl.planning.sac_wrapper import SACAgent
from mbrl.util import ReplayBuffer
from mbrl.util.common import (
    rollout_agent_trajectories,
    step_env_and_add_to_buffer,
    train_model_and_save_model_and_data,
)
from omegaconf import OmegaConf

from benchmarks import worker
from benchmarks.mbrl_lib_worker import make_agent, make_ensemble

WEIGHT_DECAY = 1e-5  # of its MBPO configurations
TRIAL_EPOCHS = 1


class Run:
    """A run of MBPO after its random steps, which goes on when it is asked to."""

    def __init__(self, task: str, termination: str, settings: dict[str, Any], seed: int) -> None:
        """Make the random steps.

        Args:
          task: as Gymnasium names it.
          termination: rule of the model rollouts, one of `mbrl.env.termination_fns`.
          settings: those of our side, by dotted path.
          seed: of everything random.
        """
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.settings, self.rng = settings, rng
        self.env = env = gymnasium.make(task, max_episode_steps=settings["env.episode_length"])
        env.action_space.seed(seed)
        env.reset(seed=seed)
        observation_shape, action_shape = env.observation_space.shape, env.action_space.shape
        self.replay = ReplayBuffer(
            settings["total_env_steps"], observation_shape, action_shape, rng=rng
        )
        self.rollouts_per_step = settings["rollout.rollouts_per_step"]
        retained = settings["rollout.retain_epochs"] * settings["epoch_length"]
        self.model_data = ReplayBuffer(
            self.rollouts_per_step * retained * settings["rollout.min_length"],
            observation_shape,
            action_shape,
            rng=rng,
        )
        self.model = make_ensemble(
            observation_shape[0],
            action_shape[0],
            settings["ensemble.hidden_sizes"],
            settings["ensemble.num_members"],
            settings["ensemble.num_elites"],
            learn_bounds=settings.get("ensemble.learn_bounds", True),
        )
        self.model_env = ModelEnv(env, self.model, getattr(termination_fns, termination))
        self.trainer = ModelTrainer(
            self.model, optim_lr=settings["fit.learning_rate"], weight_decay=WEIGHT_DECAY
        )
        self.agent = SACAgent(
            make_agent(
                observation_shape[0],
                env.action_space,
                settings["sac.hidden_sizes"][0],
                settings["sac.target_entropy"],
                settings.get("sac.target_update_interval", 1),
                settings.get("sac.learns_temperature", True),
            )
        )
        rollout_agent_trajectories(
            env, settings["random_steps"], RandomAgent(env), {}, replay_buffer=self.replay
        )
        self.observation, _ = env.reset()
        self.updates = 0
        self.seconds = collections.Counter()

    def advance(self, env_steps: int, max_epochs: int | None) -> dict[str, float]:
        """Fit the model, branch rollouts, and make environment steps with their updates.

        Returns:
          The seconds it took and the gradient steps of the fit.
        """
        began, fit_steps = time.perf_counter(), self.fit_steps()
        with self.timed("fit"):
            self.fit(max_epochs)
        with self.timed("rollouts"):
            rollout_model_and_populate_sac_buffer(
                self.model_env,
                self.replay,
                self.agent,
                self.model_data,
                sac_samples_action=True,
                rollout_horizon=self.settings["rollout.min_length"],
                batch_size=env_steps * self.rollouts_per_step,
            )
        for _ in range(env_steps):
            with self.timed("environment"):
                self.interact()
            with self.timed("agent"):
                for _ in range(self.settings["sac.utd_ratio"]):
                    self.update_agent()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "fit_steps": self.fit_steps() - fit_steps}

    def fit(self, max_epochs: int | None) -> None:
        options = {
            "model_batch_size": self.settings["fit.batch_size"],
            "validation_ratio": self.settings["fit.holdout_ratio"],
            "num_epochs_train_model": max_epochs,
            "patience": self.settings["fit.patience"] + 1,  # ours is what must be exceeded
            "improvement_threshold": self.settings["fit.min_improvement"],
        }
        train_model_and_save_model_and_data(
            self.model, self.trainer, OmegaConf.create(options), self.replay
        )

    def interact(self) -> None:
        """Act once, with the policy's noise, and store what comes of it."""
        following, _, terminated, truncated, _ = step_env_and_add_to_buffer(
            self.env, self.observation, self.agent, {"sample": True}, self.replay
        )
        self.observation = self.env.reset()[0] if terminated or truncated else following

    def update_agent(self) -> None:
        """Update on a batch that is real or, more often, the model's."""
        real = self.rng.random() < self.settings["rollout.real_ratio"]
        self.agent.sac_agent.update_parameters(
            self.replay if real else self.model_data,
            self.settings["sac.batch_size"],
            self.updates,
            reverse_mask=True,
        )
        self.updates += 1

    def fit_steps(self) -> int:
        """Return how many gradient steps the model has seen, as its optimizer counts them."""
        states = self.trainer.optimizer.state.values()
        return max((int(state["step"]) for state in states), default=0)

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add to the seconds of a part."""
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began


def main() -> None:
    """Make the random steps and serve."""
    request = json.loads(sys.argv[1])
    settings = request["settings"]
    run = Run(request["task"], request["termination"], settings, request["seed"])

    def cycle(env_steps: int) -> dict[str, float]:
        return run.advance(env_steps, settings["fit.max_epochs"])

    packages = ("mbrl", "torch", "gymnasium", "mujoco", "numpy")
    worker.serve(
        {name: version(name) for name in packages},
        {
            "threads": torch.set_num_threads,
            "cycle": cycle,
            "trial": lambda env_steps: run.advance(env_steps, TRIAL_EPOCHS),
            "parts": lambda _: dict(run.seconds),  # of all cycles
        },
    )


if __name__ == "__main__":
    main()
