"""Train with MBPO here and in mbrl-lib and compare the rates: `python -m benchmarks.end_to_end`.

The same Gymnasium task with our preset's settings on both sides, in turns: each round is one fit of
the model, its rollouts, and the environment steps up to the next fit, beginning where the random
steps end, so that both replay buffers always hold as many transitions. What counts is environment
steps per second, of all runs together. Compilation, random steps, evaluation, logs and checkpoints
are left out on both sides. `Pendulum-v1` is a small task for trying it out.

One run, and several: ours in one program, theirs in a process each. How many of these work at once,
and with how many threads, is what is fastest in a short trial before the rounds; likewise for one.

Early stopping does not end a fit after as many epochs on both sides. So that the ratio is one of
the same work, all fits are given the same number of them (`--epochs`), each with its look at the
hold-out. `--early 1` adds a row in which fits stop by themselves, by rules as near as both allow;
the gradient steps in it tell how far the work differs.

`--defaults` compares what users of both get instead: our preset with `fast` over it, and mbrl-lib's
own numbers for the task (`mbrl/examples/conf/overrides`), each with its own fits.

What still differs in mbrl-lib, by its design:
  - a batch of the agent is either real or the model's, with the probability of the real ratio,
    where ours mixes it by that share;
  - weight decay is Adam's, one for all layers; inputs are normalised with the hold-out's rows, too;
  - early stopping begins from the error before the fit, where ours begins anew, and when a member
    improves, a copy of the whole ensemble is taken, where ours takes the member's.

Run it on a quiet machine (see `benchmarks.peers`). Prints one JSON line for the machine and one for
each comparison: medians over rounds, the ratio, ours over theirs, with its range, gradient steps of
each fit, and where the time goes, as shares: theirs as measured in the rounds, ours of its parts
compiled one by one.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import MBRL_LIB, machine
from benchmarks.worker import Worker, num_threads
from mbpo_jax import config_io
from mbpo_jax.config import Config
from mbpo_jax.presets import preset


class Task(NamedTuple):
    """A task of Gymnasium.

    Attributes:
      environment: what it is called here.
      termination: how model rollouts end, one of `mbrl.env.termination_fns`.
      defaults: where mbrl-lib's own numbers differ from our preset's; none if it has no such task.
    """

    environment: str
    termination: str
    defaults: Mapping[str, Any] | None = None


OF_ALL_TASKS = {
    "sac.hidden_sizes": (512, 512),
    "ensemble.learn_bounds": False,
    "rollout.real_ratio": 0.0,
    "fit.patience": 4,  # ours is what must be exceeded
    "fit.max_epochs": None,
}
TASKS = {
    "Hopper-v5": Task(
        "gym/Hopper-v5",
        "hopper",
        {
            **OF_ALL_TASKS,
            "sac.utd_ratio": 40,
            "sac.target_update_interval": 4,
            "sac.learns_temperature": False,
        },
    ),
    "HalfCheetah-v5": Task(
        "gym/HalfCheetah-v5", "no_termination", {**OF_ALL_TASKS, "sac.utd_ratio": 10}
    ),
    "Pendulum-v1": Task("pendulum", "no_termination"),
}
TRIAL_STEPS = 10  # environment steps; with one epoch, fits have about their share of the time


class Way(NamedTuple):
    """How the peer's runs are shared out over the machine.

    Attributes:
      at_once: processes that work side by side; the others wait for their turn.
      threads: of each.
    """

    at_once: int
    threads: int


def make_fast_config(task: Task, num_runs: int) -> Config:
    """Return the settings of our side where each has its own."""
    return dataclasses.replace(preset(task.environment, "fast"), num_seeds=num_runs)


def make_config(task: Task, num_runs: int, epochs: int | None) -> Config:
    """Return the settings of both sides; fits have so many epochs, or stop by themselves if None.

    The peer knows no least number of gradient steps, which the preset of a small task may ask for.
    """
    config = preset(task.environment)
    fit = dataclasses.replace(config.fit, min_steps=0)
    if epochs is not None:
        fit = dataclasses.replace(fit, max_epochs=epochs, patience=epochs)
    return dataclasses.replace(config, num_seeds=num_runs, fit=fit)


@contextlib.contextmanager
def start_workers(
    python: str | Path, module: str, requests: Sequence[Mapping[str, Any]]
) -> Iterator[list[Worker]]:
    """Start a process for each request, one after the other; all compute on the CPU."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Worker(
                    (str(python), "-m", module, json.dumps(request)),
                    {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"},
                )
            )
            for request in requests
        ]


def measure(
    workers: Sequence[Worker], component: str, amount: int, at_once: int = 1
) -> tuple[float, list[Any]]:
    """Ask all workers, so many at a time.

    Returns:
      The seconds until the last one is done, and what they said.
    """
    began, results = time.perf_counter(), []
    for first in range(0, len(workers), at_once):
        wave = workers[first : first + at_once]
        for each in wave:
            each.ask(component, amount)
        results += [each.result() for each in wave]
    return time.perf_counter() - began, results


def possible_ways(num_runs: int, cores: int) -> list[Way]:
    """Return ways that share all cores out, and the one in which each process has one thread."""
    counts = {min(2**i, num_runs) for i in range(num_runs.bit_length() + 1)}
    return sorted({*(Way(count, max(cores // count, 1)) for count in counts), Way(num_runs, 1)})


def fastest_way(peers: Sequence[Worker], cores: int) -> Way:
    """Try the ways on a piece of the work."""
    seconds = {}
    for way in possible_ways(len(peers), cores):
        measure(peers, "threads", way.threads)
        seconds[way] = min(measure(peers, "trial", TRIAL_STEPS, way.at_once)[0] for _ in range(2))
    return min(seconds, key=lambda way: seconds[way])


def shares(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the share that each part has of the time of all."""
    seconds = {name: sum(run[name] for run in parts) for name in parts[0]}
    total = sum(seconds.values())
    return {name: value / total for name, value in seconds.items()}


def compare(
    python: Path, task: str, config: Config, rounds: int, defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the comparison of one number of runs; the peer has our settings but for `defaults`."""
    runs, env_steps = config.num_seeds, config.steps_per_fit
    settings = {"settings": config_io.flatten(config)}
    peer_settings = {"settings": {**settings["settings"], **(defaults or {})}}
    requests = [
        {**peer_settings, "task": task, "termination": TASKS[task].termination, "seed": seed}
        for seed in range(runs)
    ]
    theirs = "benchmarks.mbrl_lib_mbpo_worker"
    with start_workers(python, theirs, requests) as peers:  # others, so that buffers stay equal
        way = fastest_way(peers, num_threads())
    with (
        start_workers(python, theirs, requests) as peers,
        start_workers(sys.executable, "benchmarks.ours_mbpo_worker", [settings]) as ours,
    ):
        measure(peers, "threads", way.threads)
        own_seconds, own_fits, peer_seconds, peer_fits = [], [], [], []
        for _ in range(rounds):
            for workers, at_once, seconds, fits in (
                (ours, 1, own_seconds, own_fits),
                (peers, way.at_once, peer_seconds, peer_fits),
            ):
                taken, results = measure(workers, "cycle", env_steps, at_once)
                seconds.append(taken)
                fits.append(statistics.mean(result["fit_steps"] for result in results))
        ratios = [theirs / own for own, theirs in zip(own_seconds, peer_seconds, strict=True)]
        return {
            "runs": runs,
            "settings": "equal" if defaults is None else "each its own",
            "fit": described(config),
            "ours_steps_per_second": runs * env_steps / statistics.median(own_seconds),
            "mbrl_lib_steps_per_second": runs * env_steps / statistics.median(peer_seconds),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            # The first fit may be a long one.
            "ratio_of_totals": sum(peer_seconds) / sum(own_seconds),
            "ours_seconds": [round(seconds, 2) for seconds in own_seconds],
            "mbrl_lib_seconds": [round(seconds, 2) for seconds in peer_seconds],
            "rounds": rounds,
            "env_steps_per_round": env_steps,
            "replay_sizes": [config.random_steps + i * env_steps for i in range(rounds)],
            "ours_fit_steps": own_fits,
            "mbrl_lib_fit_steps": peer_fits,
            "ours_shares": shares(measure(ours, "parts", 1)[1]),
            "mbrl_lib_shares": shares(measure(peers, "parts", 1)[1]),
            "mbrl_lib_processes_at_once": way.at_once,
            "mbrl_lib_threads": way.threads,
            "ours": ours[0].description,
            "mbrl_lib": peers[0].description,
        }


def described(config: Config) -> str:
    """Say how our fits end."""
    fit = config.fit
    if fit.stopping == "budget":
        return f"budget of {fit.num_steps}"
    return "early" if fit.max_epochs is None else f"{fit.max_epochs} epochs"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="Hopper-v5")
    parser.add_argument("--rounds", type=int, default=3, help="fits, with what follows each")
    parser.add_argument("--epochs", type=int, default=40, help="of each fit")
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 4], help="trained together")
    parser.add_argument(
        "--early", type=int, nargs="*", default=[], help="the same, where fits stop by themselves"
    )
    parser.add_argument(
        "--defaults", type=int, nargs="*", default=[], help="runs, each side with its own settings"
    )
    options = parser.parse_args(arguments)
    task = TASKS[options.task]
    if options.defaults and task.defaults is None:
        parser.error(f"mbrl-lib has no settings of its own for {options.task}")
    for name in ("rounds", "epochs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    about = machine()
    python = MBRL_LIB.python_or_exit()
    print(json.dumps(about | {"task": options.task}), flush=True)
    cases = [
        *((runs, options.epochs) for runs in options.runs),
        *((runs, None) for runs in options.early),
    ]
    for runs, epochs in cases:
        config = make_config(task, runs, epochs)
        print(json.dumps(compare(python, options.task, config, options.rounds)), flush=True)
    for runs in options.defaults:
        config = make_fast_config(task, runs)
        found = compare(python, options.task, config, options.rounds, task.defaults)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
