"""How little fitting does a model need that is fitted again and again to a growing buffer?

`python -m experiments.model_fitting --task hopper` replays transitions that SAC with one update a
step has made, and fits the ensemble to the first 5,000 of them, then to 250 more, and so on to
10,000 (`dense`), or to 2,500 more at a time, to 50,000 (`sparse`), by one rule after another. What
counts is how well it predicts the 1,000 transitions that come next, which no fit has seen: the
negative log-likelihood of one step, and the error of open-loop predictions over ten, against
gradient steps and seconds.

The transitions are recorded at the first call, below runs/model_fitting. Rows go to
`experiments/results/model_fitting_TASK.jsonl` rule by rule; those that are there are not made
again. `--draw` draws the figure and writes the table of all tasks.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mbpo_jax
from experiments import common
from mbpo_jax import config_io
from mbpo_jax.config import Config
from mbpo_jax.envs import make_env
from mbpo_jax.envs.termination import rule_of
from mbpo_jax.files import Row, read_rows
from mbpo_jax.models import diagnostics
from mbpo_jax.models.ensemble import EnsembleState, make_ensemble, select_members
from mbpo_jax.models.learned import make_learned_model
from mbpo_jax.presets import environment_preset
from mbpo_jax.replay import ReplayState
from mbpo_jax.training import devices, playback, run_directory
from mbpo_jax.training.layout import set_up
from mbpo_jax.types import Transition

TASKS = {"halfcheetah": "gym/HalfCheetah-v5", "hopper": "gym/Hopper-v5", "pendulum": "pendulum"}
FIRST, LATER = 5000, 1000
"""Transitions of the first fit, and those behind each fit that are predicted."""
HORIZON = 10
SEEDS = (0, 1)


class Schedule(NamedTuple):
    """When the model is fitted.

    Attributes:
      every: transitions between two fits.
      last: transitions of the last one.
      rules: by which it is fitted.
    """

    every: int
    last: int
    rules: tuple[str, ...]


def budget(num_steps: int, first: int = 2500, **other: Any) -> dict[str, Any]:
    """Return the rule of so many gradient steps a fit, and more in the first one."""
    fit = {"stopping": "budget", "num_steps": num_steps, "cold_factor": max(first // num_steps, 1)}
    return {"fit": fit | other.pop("fit", {}), **other}


SCALED = {"normalize_targets": True}
RULES: Mapping[str, dict[str, Any]] = {
    "early": {},
    "early, patience 1": {"fit": {"patience": 1}},
    "early, scaled": {"ensemble": SCALED},
    "early, each time anew": {},
    **{f"budget {n}": budget(n) for n in (25, 50, 100, 250, 500)},
    "budget 50, first 1000": budget(50, 1000),
    "budget 50, first 2000": budget(50, 2000),
    "budget 75, first 1500": budget(75, 1500),
    "budget 100, first 1000": budget(100, 1000),
    "budget 25, scaled": budget(25, ensemble=SCALED),
    "budget 50, first 2000, scaled": budget(50, 2000, ensemble=SCALED),
    "budget 100, scaled": budget(100, ensemble=SCALED),
    "budget 100, batches of 1024": budget(100, fit={"batch_size": 1024}),
    "budget 100, batches of 1024, rate 2e-3": budget(
        100, fit={"batch_size": 1024, "learning_rate": 2e-3}
    ),
    "budget 100, rate 3e-4": budget(100, fit={"learning_rate": 3e-4}),
    "budget 100, 5 members": budget(100, ensemble={"num_members": 5, "num_elites": 4}),
    "budget 1000, each time anew": budget(1000, 1000),
}
SCHEDULES = {
    "dense": Schedule(250, 10_000, tuple(RULES)),
    "sparse": Schedule(
        2500,
        50_000,
        ("early", "budget 25", "budget 50", "budget 250", "budget 50, first 2000, scaled"),
    ),
}


def recorded(task: str) -> Transition:
    """Return the transitions of a run of SAC, oldest first, making it if need be."""
    path = Path("runs/model_fitting") / task
    steps = SCHEDULES["sparse"].last + LATER
    run = mbpo_jax.train(
        TASKS[task],
        path,
        algorithm="sac",
        sac={"utd_ratio": 1},
        random_steps=FIRST,
        total_env_steps=steps,
        replay_capacity=steps,
        stop_at_return=None,
        eval_every=5000,
        checkpoint_every=5000,
    )
    if run.state != "finished":
        sys.exit(f"{path} is {run.state}; give the same command again")
    setup = set_up(run_directory.load_group(path))
    state = playback.of_run(playback.load_checkpoint(path, setup).state, 0)
    assert int(state.replay.size) == steps
    return state.replay.data


def settings(task: str, rule: str, schedule: Schedule) -> Config:
    """Return the preset of a task with a rule; a budget is one for 250 transitions."""
    config = config_io.apply(environment_preset(TASKS[task]), RULES[rule], rule)
    times = schedule.every // 250
    fit = {
        "num_steps": config.fit.num_steps * times,
        "cold_factor": max(config.fit.cold_factor // times, 1),
    }
    # A fit is a cold one until the random steps end: here, whenever the model is new.
    ends = {"random_steps": schedule.last, "total_env_steps": 2 * schedule.last}
    return config_io.apply(config, {"fit": fit, **ends, "replay_capacity": 2 * schedule.last}, rule)


def fits(task: str, rule: str, schedule: Schedule, data: Transition, seed: int) -> Iterator[Row]:
    """Fit the model again and again, and yield a row for each fit."""
    config = settings(task, rule, schedule)
    env = make_env(config.env)
    known = rule_of(env, config.env.termination)
    model = make_learned_model(env.spec, config, known)
    ensemble = make_ensemble(
        env.spec,
        config.ensemble,
        optax.adam(config.fit.learning_rate),
        learned_termination=known is None,
    )

    @jax.jit
    def look(state: EnsembleState, first: jax.Array) -> dict[str, jax.Array]:
        batch = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, LATER), data)
        elites = select_members(state, state.elites)
        outcome = diagnostics.predict_all(ensemble, elites, batch.observation, batch.action)
        actual = jnp.concatenate([batch.reward[:, None], batch.next_observation], -1)
        # In units of the targets' standard deviation, so that all of them count alike.
        change = jnp.concatenate(
            [data.reward[:, None], data.next_observation - data.observation], -1
        )
        scale = jnp.std(change, axis=0)
        deviation = jnp.square((outcome.mean - actual[None]) / outcome.std)
        nll = 0.5 * deviation + jnp.log(outcome.std / scale)
        error = jnp.sqrt(jnp.mean(jnp.square((outcome.mean - actual[None]) / scale)))
        k_step = diagnostics.k_step_errors(
            ensemble,
            elites,
            batch,
            jnp.ones(LATER, bool),
            jnp.std(data.observation, axis=0),
            HORIZON,
        )
        # A median over transitions: by the mean, the best rule is the one that is least sure of a
        # few falls, whose log-losses are hundreds.
        return {
            "nll": jnp.mean(jnp.median(jnp.mean(nll, -1), -1)),
            "nll_mean": jnp.mean(nll),
            "error": error,
            "k_step_error": k_step[-1],
        }

    capacity = data.reward.shape[0]
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    fresh = state = jax.jit(model.init)(init_key)
    buffer = ReplayState(data, jnp.int32(FIRST), jnp.int32(FIRST))
    arguments = (fit_key, state, buffer, jnp.int32(FIRST))
    refit = jax.jit(model.fit).lower(*arguments).compile(devices.compiler_options())
    for i, size in enumerate(range(FIRST, schedule.last + 1, schedule.every)):
        number = jnp.int32(size)
        buffer = ReplayState(data, number % capacity, number)
        began = time.perf_counter()
        start = fresh if "each time anew" in rule else state
        state, metrics = refit(jax.random.fold_in(fit_key, i), start, buffer, number)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - began
        found = {name: round(float(value), 5) for name, value in look(state, number).items()}
        yield {
            "task": task,
            "rule": rule,
            "seed": seed,
            "transitions": size,
            "gradient_steps": int(metrics["model/gradient_steps"]),
            "seconds": round(seconds, 3),
            **found,
        }


def experiment(task: str) -> str:
    """Return the name of a task's rows."""
    return f"model_fitting_{task}"


def known_rows(task: str) -> list[Row]:
    """Return the rows of a task that are there."""
    raw = common.results_file(experiment(task))
    return read_rows(raw) if raw.exists() else []


def run(task: str, schedules: Sequence[str], rules: Sequence[str]) -> None:
    """Make the rows of a task that are not there, by some of the rules or all of them."""
    devices.use_compilation_cache(devices.default_cache_directory())
    data = jax.device_put(recorded(task))
    for name in schedules:
        for rule in SCHEDULES[name].rules:
            part = f"{name}: {rule}"
            is_there = part in {row["part"] for row in known_rows(task)}
            if is_there or (rules and rule not in rules):
                continue
            rows = [row for seed in SEEDS for row in fits(task, rule, SCHEDULES[name], data, seed)]
            common.replace_part(experiment(task), part, rows)
            steps, seconds = (
                sum(row[column] for row in rows) / len(SEEDS)
                for column in ("gradient_steps", "seconds")
            )
            nll, error = (np.mean([r[column] for r in rows]) for column in ("nll", "k_step_error"))
            print(f"{task} {part}: {steps:.0f} steps, {seconds:.0f} s, {nll:.3f}, {error:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Rules for fitting a model.")
    parser.add_argument("--task", choices=TASKS, action="append", default=[])
    parser.add_argument("--schedule", choices=SCHEDULES, action="append", default=[])
    parser.add_argument(
        "--rule", choices=RULES, action="append", default=[], help="all if not given"
    )
    parser.add_argument("--draw", action="store_true", help="draw the rows of all tasks")
    arguments = parser.parse_args()
    for task in arguments.task:
        run(task, arguments.schedule or list(SCHEDULES), arguments.rule)
    if arguments.draw:
        from experiments.model_fitting_figure import draw, table

        by_task = {task: known_rows(task) for task in TASKS}
        draw(common.RESULTS / "model_fitting.png", by_task)
        (common.RESULTS / "model_fitting.md").write_text(table(by_task))
    return 0


if __name__ == "__main__":
    sys.exit(main())
