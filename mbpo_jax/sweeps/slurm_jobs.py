"""Training the groups of a sweep as jobs of SLURM, one job of an array a group.

A job only runs the command that trains its group. Ahead of its time limit, or when it is preempted,
SLURM signals it: the group is saved, and the job goes back into the queue and on from there. The
sweep's directory has to be shared by all nodes. Results go through run directories alone.
"""

import datetime
import importlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.errors import ConfigError
from mbpo_jax.files import write_json_atomic
from mbpo_jax.sweeps import process, store
from mbpo_jax.sweeps.store import OVER, Unit
from mbpo_jax.training import run_directory
from mbpo_jax.training.driver import Interruption

JOB = "job.json"
"""Which job trains a group."""
LOOK_EVERY = 2.0
SIGNAL_AHEAD = 120
"""Seconds before the time limit at which a job is told to save."""
MOST_REQUEUES = 1000


class GroupJob:
    """What a job does; submitit asks it for a checkpoint when SLURM signals."""

    def __call__(self, sweep_dir: str, name: str) -> int:
        """Train a group in a process of its own, and return how that ended."""
        self._unit = store.find_unit(Path(sweep_dir), name)
        self._training = process.start(Path(sweep_dir), self._unit)
        while self._training.poll() is None:
            time.sleep(1.0)
        print(process.told_end(self._unit, self._training.returncode))
        return self._training.returncode

    def checkpoint(self, sweep_dir: str, name: str) -> Any:
        """Have the group saved, and say what is to be done next time."""
        self._training.send_signal(signal.SIGTERM)
        # A signal's handler: `Popen.wait` may be interrupted and hold its lock.
        while run_directory.holder(self._unit.path):
            time.sleep(0.2)
        return _submitit().helpers.DelayedSubmission(GroupJob(), sweep_dir, name)


def train_all(
    sweep_dir: Path,
    units: Sequence[Unit],
    interruption: Interruption,
    look: Callable[[Sequence[Unit]], None],
    announce: Callable[[str], None],
    *,
    partition: str | None,
    minutes: int,
    cpus: int,
    gpus: int,
) -> None:
    """Train all units that are not over; see `local.train_all`.

    An interruption leaves the jobs to SLURM: the same command looks at them again.

    Args:
      sweep_dir: of the sweep, on a file system that all nodes share.
      units: of the sweep.
      interruption: asks for an end.
      look: called again and again with the units that are being trained.
      announce: told what happens, in lines.
      partition: of the jobs; the cluster's default if None.
      minutes: time limit of a job; longer groups are saved and queued again.
      cpus: of a job.
      gpus: of a job.

    Raises:
      ConfigError: submitit is not installed, or SLURM does not take the jobs.
    """
    submitit = _submitit()
    folder = sweep_dir.resolve() / "slurm"
    executor = submitit.AutoExecutor(
        folder=folder / "%j", cluster="slurm", slurm_max_num_timeout=MOST_REQUEUES
    )
    wanted = {"slurm_partition": partition} if partition else {}
    wanted |= {"slurm_gpus_per_node": gpus} if gpus else {}
    executor.update_parameters(
        name="mbpo-jax",
        timeout_min=minutes,
        cpus_per_task=cpus,
        slurm_signal_delay_s=min(SIGNAL_AHEAD, 30 * minutes),
        slurm_additional_parameters={"requeue": True},
        **wanted,
    )
    while not interruption.requested:
        pending = [unit for unit in units if unit.state not in OVER]
        if not pending:
            return
        lost = [unit for unit in pending if not _is_queued(unit)]
        for unit in lost:
            _note_if_lost(unit, announce)
        free = [
            unit for unit in lost if unit.state not in OVER and not run_directory.holder(unit.path)
        ]
        if free:
            _submit(executor, sweep_dir.resolve(), free, announce)
        look([unit for unit in pending if run_directory.holder(unit.path)])
        time.sleep(LOOK_EVERY)
    jobs = sorted(filter(None, (_job_of(unit) for unit in units if unit.state not in OVER)))
    announce(f"jobs go on: {' '.join(jobs)}; the same command looks at them, scancel ends them")


def _submit(executor: Any, sweep_dir: Path, units: Sequence[Unit], announce: Callable) -> None:
    try:
        jobs = executor.map_array(
            GroupJob(), [str(sweep_dir)] * len(units), [unit.name for unit in units]
        )
    except Exception as error:  # submitit has several, and SLURM's own words are in them
        raise ConfigError(f"SLURM did not take the jobs: {error}") from error
    for unit, job in zip(units, jobs, strict=True):
        write_json_atomic(unit.path / JOB, {"job": job.job_id, "noted": False})
        announce(f"{unit.name}: job {job.job_id}")


def _job_of(unit: Unit) -> str | None:
    try:
        return json.loads((unit.path / JOB).read_text())["job"]
    except (OSError, ValueError, LookupError):
        return None


def _is_queued(unit: Unit) -> bool:
    """Return whether SLURM still has the unit's job, waiting or running."""
    job = _job_of(unit)
    if job is None:
        return False
    asked = subprocess.run(
        ["squeue", "--noheader", "--format=%T", f"--jobs={job}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.returncode == 0 and bool(asked.stdout.strip())


def _note_if_lost(unit: Unit, announce: Callable[[str], None]) -> None:
    """Count a job that ended without a word as a failure, once."""
    job = _job_of(unit)
    if job is None:
        return
    (unit.path / JOB).unlink(missing_ok=True)
    if unit.state in OVER:
        return
    announce(f"{unit.name}: job {job} has ended, and the group has not")
    unit.add_failure(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        reason=f"job {job} ended",
        last_line=process.last_line(unit.path / store.OUTPUT),
    )


def _submitit() -> Any:
    """Return the module submitit.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'mbpo-jax[slurm]'") from error
