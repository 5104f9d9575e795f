"""Training the groups of a sweep as jobs of SLURM, one job of an array a group.

A job only runs the command that trains its group. Ahead of its time limit, or when it is preempted,
SLURM signals it: the group is saved, and the job goes back into the queue and on from there. The
sweep's directory has to be shared by all nodes. Results go through run directories alone.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.errors import ConfigError
from mbpo_jax.files import write_json_atomic
from mbpo_jax.sweeps import process, store
from mbpo_jax.sweeps.process import Work
from mbpo_jax.sweeps.store import OVER, Unit
from mbpo_jax.training import run_directory

NAME = "mbpo-jax"
"""Of all jobs."""
JOB = "job.json"
"""Which job is to train a group; gone once the job has said how that ended."""
LOOK_EVERY = 5.0
SIGNAL_AHEAD = 120
"""Seconds before the time limit at which a job is told to save."""
MOST_REQUEUES = 1000


class GroupJob:
    """What a job does; submitit asks it for a checkpoint when SLURM signals."""

    _training: subprocess.Popen | None = None

    def __call__(self, sweep_dir: str, name: str) -> int:
        """Train a group in a process of its own, and return how that ended."""
        unit = store.find_unit(Path(sweep_dir), name)
        self._training = process.start(Path(sweep_dir), unit)
        # What `scancel` and preemption send, and submitit would pass over. It saves, and ends.
        signal.signal(signal.SIGTERM, lambda *_: self._ask_for_end())
        while self._training.poll() is None:
            time.sleep(1.0)
        # Whoever submitted this job notes its number before anything is told here.
        with store.held(Path(sweep_dir)):
            try:
                print(process.told_end(unit, self._training.returncode))
            except process.NoRoom:  # the next node may have more
                print(process.note_failure(unit, "too little memory"))
            if _job_of(unit) == _submitit().JobEnvironment().job_id:
                (unit.path / JOB).unlink()
        return self._training.returncode

    def checkpoint(self, sweep_dir: str, name: str) -> Any:
        """Have the group saved, and say what is to be done next time."""
        if self._training is not None:
            self._ask_for_end()
            # In a handler of a signal, which may have come while `poll` held its lock.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._training.pid, os.WEXITED | os.WNOWAIT)
        return _submitit().helpers.DelayedSubmission(GroupJob(), sweep_dir, name)

    def _ask_for_end(self) -> None:
        assert self._training is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._training.pid, signal.SIGTERM)


def train_all(work: Work, *, partition: str | None, minutes: int, cpus: int, gpus: int) -> None:
    """Train all units that are not over, until they are or an interruption.

    An interruption leaves the jobs to SLURM: the same command looks at them again.

    Args:
      work: its directory lies on a file system that all nodes share.
      partition: of the jobs; the cluster's default if None.
      minutes: time limit of a job; longer groups are saved and queued again.
      cpus: of a job.
      gpus: of a job.

    Raises:
      ConfigError: submitit is not installed, or SLURM is not there or does not take the jobs.
      DiskError: nothing can be written.
    """
    try:
        executor = _submitit().AutoExecutor(
            folder=work.sweep_dir.resolve() / "slurm" / "%j",
            cluster="slurm",
            slurm_max_num_timeout=MOST_REQUEUES,
        )
    except RuntimeError as error:  # it looks for `srun`
        raise ConfigError(
            f"SLURM is not on this machine: {error}; give the command where sbatch works"
        ) from error
    wanted = {"slurm_partition": partition} if partition else {}
    wanted |= {"slurm_gpus_per_node": gpus} if gpus else {}
    executor.update_parameters(
        name=NAME,
        timeout_min=minutes,
        cpus_per_task=cpus,
        slurm_signal_delay_s=min(SIGNAL_AHEAD, 30 * minutes),
        slurm_additional_parameters={"requeue": True},
        **wanted,
    )
    while not work.interruption.requested and (pending := work.pending):
        with store.held(work.sweep_dir):
            _submit_missing(executor, work, pending)
        work.look([unit for unit in pending if run_directory.holder(unit.path)])
        time.sleep(LOOK_EVERY)
    if work.interruption.requested:
        jobs = sorted(filter(None, map(_job_of, work.pending)))
        work.announce(
            f"jobs go on: {' '.join(jobs)}; the same command looks at them, scancel ends them"
        )


def _submit_missing(executor: Any, work: Work, pending: Sequence[Unit]) -> None:
    """Submit a job for every unit that nobody trains or is going to."""
    queued = _queued_jobs()
    if queued is None:  # SLURM does not answer just now
        return
    for unit in pending:
        if (job := _job_of(unit)) is not None and job not in queued:
            (unit.path / JOB).unlink()
            if unit.state in OVER:
                continue
            if _was_cancelled(job):
                work.announce(f"{unit.name}: job {job} was cancelled")
            else:
                work.announce(process.note_failure(unit, f"job {job} ended without a word"))
    free = [
        unit
        for unit in pending
        if unit.state not in OVER and not _job_of(unit) and not run_directory.holder(unit.path)
    ]
    if not free:
        return
    sweep_dir = str(work.sweep_dir.resolve())
    try:
        jobs = executor.map_array(GroupJob(), [sweep_dir] * len(free), [unit.name for unit in free])
    except Exception as error:  # submitit has several, and SLURM's own words are in them
        raise ConfigError(f"SLURM did not take the jobs: {error}") from error
    for unit, job in zip(free, jobs, strict=True):
        write_json_atomic(unit.path / JOB, {"job": job.job_id})
        work.announce(f"{unit.name}: job {job.job_id}")


def _job_of(unit: Unit) -> str | None:
    try:
        return json.loads((unit.path / JOB).read_text())["job"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _queued_jobs() -> set[str] | None:
    """Return the jobs that SLURM has, waiting or running; None if it does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--name={NAME}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(asked.stdout.split()) if asked.returncode == 0 else None


def _was_cancelled(job: str) -> bool:
    """Return whether somebody cancelled a job, as far as SLURM still knows."""
    command = ["scontrol", "show", "job", "--oneliner", job]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return "JobState=CANCELLED" in asked.stdout


def _submitit() -> Any:
    """Return the module submitit.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'mbpo-jax[slurm]'") from error
