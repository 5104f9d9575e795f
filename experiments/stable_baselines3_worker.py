"""Train Stable-Baselines3's SAC; `reference_sac` starts it in that library's own environment.

Its argument is JSON: the task, the seed, steps, and settings in the names of its SAC. Prints one
JSON line for each evaluation.
"""

import json
import sys

import gymnasium
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor


class Evaluation(BaseCallback):
    """Prints returns of the policy without its noise, every so many steps."""

    def __init__(self, task: str, every: int, episodes: int) -> None:
        super().__init__()
        self._env, self._every, self._episodes = Monitor(gymnasium.make(task)), every, episodes

    def _on_step(self) -> bool:
        steps = self.num_timesteps
        if steps % self._every == 0 and steps > self.model.learning_starts:
            mean, std = evaluate_policy(self.model, self._env, n_eval_episodes=self._episodes)
            row = {
                "env_steps": steps,
                "return_mean": float(mean),
                "return_std": float(std),
                "alpha": float(self.model.log_ent_coef.detach().exp()),
            }
            print(json.dumps(row), flush=True)
        return True


def main() -> None:
    torch.set_num_threads(1)
    work = json.loads(sys.argv[1])
    model = SAC("MlpPolicy", gymnasium.make(work["task"]), device="cpu", **work["settings"])
    evaluation = Evaluation(work["task"], work["eval_every"], work["eval_episodes"])
    model.learn(work["total_env_steps"], callback=evaluation)


if __name__ == "__main__":
    main()
