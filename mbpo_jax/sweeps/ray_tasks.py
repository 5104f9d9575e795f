"""Training the groups of a sweep on a Ray cluster, one task a group.

A task only starts the command that trains its group, and results go through run directories alone,
so nothing is lost with a worker or a node: Ray runs the task again elsewhere, and the group goes on
from its checkpoint. The sweep's directory has to be shared by all nodes.
"""

import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.sweeps import process, store
from mbpo_jax.sweeps.process import Work
from mbpo_jax.sweeps.store import OVER, Unit
from mbpo_jax.training import run_directory

LOOK_EVERY = 1.0
LOST_TASKS = 10
"""How often Ray may start a group again after a worker or a node was lost."""


def train_in_task(sweep_dir: str, name: str) -> int:
    """Train a group in a process of its own, and return how that ended."""
    unit = store.find_unit(Path(sweep_dir), name)
    training = None
    try:
        while True:
            while run_directory.holder(unit.path):
                time.sleep(LOOK_EVERY)
            # With the worker dies what it trains, so that the next one finds the group free.
            training = process.start(Path(sweep_dir), unit, dies_with_us=True)
            if (code := training.wait()) != OF_OUTCOME["busy"]:
                return code
    except KeyboardInterrupt:  # the driver cancels the task
        if training is None:
            return OF_OUTCOME["interrupted"]
        training.send_signal(signal.SIGTERM)
        return training.wait()


def train_all(work: Work, *, address: str | None, cpus: float | None, gpus: float) -> None:
    """Train all units that are not over, until they are or an interruption.

    Args:
      work: its directory lies on a file system that all nodes share.
      address: of the cluster; "auto" for the one that this machine belongs to, None for one that is
        started here for the time being.
      cpus: of a task; all of the smallest node if None and there are no GPUs, else 1.
      gpus: of a task.

    Raises:
      ConfigError: Ray is not installed, the cluster cannot be reached or has too little, or groups
        are left that do not fit the memory.
      DiskError: the disk is full, or the like; the other groups were asked to save and stop.
    """
    ray = _connect(address)
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if cpus is None:
            cpus = 1 if gpus else min((n["CPU"] for n in alive if n.get("CPU")), default=1)
        if not any(n.get("CPU", 0) >= cpus and n.get("GPU", 0) >= gpus for n in alive):
            raise ConfigError(
                f"no node of the cluster has {cpus:g} CPUs and {gpus:g} GPUs; "
                "lower --cpus-per-task or --gpus-per-task"
            )
        work.announce(f"{len(alive)} nodes; a group gets {cpus:g} CPUs and {gpus:g} GPUs")
        task = ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_retries=LOST_TASKS, scheduling_strategy="SPREAD"
        )(train_in_task)
        _follow(ray, task, work)
    finally:
        ray.shutdown()


def _follow(ray: Any, task: Any, work: Work) -> None:
    """Start a task for every unit, start those again that failed, and wait for all."""
    sweep_dir = str(work.sweep_dir.resolve())
    waiting = {task.remote(sweep_dir, unit.name): unit for unit in work.pending}
    problems: list[ConfigError] = []
    full: DiskError | None = None
    ending = cancelled = False
    while waiting:
        if (ending or work.interruption.requested) and not cancelled:
            cancelled = True
            work.announce("groups are asked to save and stop")
            for reference in waiting:
                ray.cancel(reference)
        ended, _ = ray.wait(list(waiting), timeout=LOOK_EVERY)
        work.look([unit for unit in waiting.values() if unit.state == "running"])
        for reference in ended:
            unit = waiting.pop(reference)
            try:
                work.announce(_told_end(ray, unit, reference))
            except process.NoRoom as problem:  # others may fit
                work.announce(str(problem))
                problems.append(problem)
                continue
            except DiskError as problem:  # a full disk is full for all
                work.announce(str(problem))
                ending, full = True, problem
                continue
            if unit.state not in OVER and not cancelled:
                waiting[task.remote(sweep_dir, unit.name)] = unit
    if full:
        raise full
    if problems:
        raise ConfigError(*map(str, problems))


def _told_end(ray: Any, unit: Unit, reference: Any) -> str:
    """Say how a task ended, and note it if it failed; raises what `process.told_end` does."""
    try:
        return process.told_end(unit, ray.get(reference))
    except ray.exceptions.TaskCancelledError:
        return f"{unit.name}: interrupted"
    except ray.exceptions.RayError as error:
        *_, reason = str(error).strip().splitlines() or [type(error).__name__]
        return process.note_failure(unit, f"lost by Ray: {reason[:200]}")


def _connect(address: str | None) -> Any:
    """Return the module of Ray, connected to a cluster.

    Raises:
      ConfigError: it is not installed, or there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")  # an extra, which type checkers need not find
    except ImportError as error:
        raise ConfigError("Ray is not installed; pip install 'mbpo-jax[ray]'") from error
    options = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"address: cannot reach a Ray cluster at {address}: {error}") from error
    return ray
