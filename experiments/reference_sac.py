"""Is our SAC right? Beside Stable-Baselines3's: `python -m experiments.reference_sac`.

Both learn with the same settings, one update a step, on the same Gymnasium task: same networks,
rates, buffer, random steps at the start, target entropy, temperature at the start. Nothing of a
model is in it, so that what MBPO gets can be told from what its agent gets.

Our runs are directories under `runs/reference_sac/`, the other's rows are files there, one for each
seed; what is complete is not trained again. Its packages are installed once, into an environment of
their own. Raw rows go to `results/reference_sac.jsonl`, the figure beside it.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peer_environment import PeerEnvironment
from experiments import common
from mbpo_jax.config import Config
from mbpo_jax.files import Row, read_rows, replace_rows
from mbpo_jax.presets import environment_preset

NAME = "reference_sac"
TASK = "HalfCheetah-v5"
OURS, THEIRS = "mbpo_jax", "Stable-Baselines3"
ALPHA = "sac/alpha"

STABLE_BASELINES3 = PeerEnvironment(
    "stable-baselines3",
    packages=(
        "cloudpickle==3.1.3",
        "gymnasium==1.4.0",
        "imageio==2.38.1",
        "matplotlib==3.11.2",
        "mujoco==4.0.0",
        "numpy==2.4.6",
        "pandas==3.1.1",
        "torch==2.13.0",
    ),
    alone=("stable-baselines3==2.9.2",),
)


def make_config(total_env_steps: int, num_seeds: int) -> Config:
    """Return the preset of the task as SAC with one update a step."""
    preset = environment_preset(f"gym/{TASK}")
    return dataclasses.replace(
        preset,
        algorithm="sac",
        sac=dataclasses.replace(preset.sac, utd_ratio=1),
        total_env_steps=total_env_steps,
        num_seeds=num_seeds,
        eval_every=1000,
        eval_episodes=5,
    )


def settings_of_theirs(config: Config, seed: int) -> dict[str, object]:
    """Return the same settings, in the names of Stable-Baselines3."""
    sac = config.sac
    return {
        "seed": seed,
        "learning_starts": config.random_steps,
        "buffer_size": config.replay_capacity,
        "gradient_steps": sac.utd_ratio,
        "batch_size": sac.batch_size,
        "policy_kwargs": {"net_arch": list(sac.hidden_sizes), "n_critics": sac.num_critics},
        "learning_rate": sac.learning_rate,
        "gamma": sac.gamma,
        "tau": sac.tau,
        "ent_coef": f"auto_{sac.initial_alpha}",
        "target_entropy": sac.target_entropy,
    }


def train_theirs(config: Config, seed: int) -> list[Row]:
    """Return the evaluations of one seed, training it unless it was trained before."""
    path = Path("runs", NAME, f"stable-baselines3-{config.total_env_steps}-{seed}.jsonl")
    if path.exists():
        return read_rows(path)
    work = {
        "task": TASK,
        "settings": settings_of_theirs(config, seed),
        "total_env_steps": config.total_env_steps,
        "eval_every": config.eval_every,
        "eval_episodes": config.eval_episodes,
    }
    python = STABLE_BASELINES3.python_or_exit()
    worker = Path(__file__).with_name("stable_baselines3_worker.py")
    command = [python, worker, json.dumps(work)]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            rows.append({"run": seed, "seed": seed, **json.loads(line)})
            print(f"{THEIRS}, seed {seed}: {line}", end="", flush=True)
    if process.returncode:
        sys.exit(f"training {THEIRS} failed with exit code {process.returncode}; see above")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_rows(path, rows)
    return rows


def our_rows(entry: common.Entry) -> Iterator[Row]:
    """Yield the evaluations of our run directory, with the temperature of the updates before."""
    run_dir = common.run_directory(NAME, entry)
    alphas = {
        (row["run"], row["env_steps"]): row[ALPHA] for row in read_rows(run_dir / "metrics.jsonl")
    }
    for row in read_rows(run_dir / "evals.jsonl"):
        if row["env_steps"] > 0:  # the other library is not evaluated before it trains
            yield {**row, "alpha": alphas[row["run"], row["env_steps"]]}


def draw(rows: Sequence[Row]) -> None:
    """Draw returns, and print what both have at some steps."""
    from experiments.comparison import comparison_curves

    panels = common.panels(rows)
    comparison_curves(common.RESULTS / f"{NAME}.png", panels)
    (learners,) = panels.values()
    last = max(row["env_steps"] for row in rows)
    for steps in range(10_000, last + 1, 10_000):
        for learner, evaluations in learners.items():
            here = [row for row in evaluations if row["env_steps"] == steps]
            returns = ", ".join(f"{row['return_mean']:,.0f}" for row in here)
            alphas = ", ".join(f"{row['alpha']:.3f}" for row in here)
            print(f"{steps:>7,} {learner:<18} returns {returns}; temperatures {alphas}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Our SAC beside Stable-Baselines3's.")
    parser.add_argument("--num-seeds", type=int, default=3)
    parser.add_argument("--total-env-steps", type=int, default=50_000)
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    arguments = parser.parse_args()
    results = common.results_file(NAME)
    if not arguments.draw_only:
        config = make_config(arguments.total_env_steps, arguments.num_seeds)
        ours = common.Entry(TASK, OURS, config)
        if code := common.train(NAME, [ours]):
            return code
        theirs = [row for seed in range(config.num_seeds) for row in train_theirs(config, seed)]
        rows = [{"environment": TASK, "learner": OURS, **row} for row in our_rows(ours)]
        rows += [{"environment": TASK, "learner": THEIRS, **row} for row in theirs]
        replace_rows(results, rows)
    draw(read_rows(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
