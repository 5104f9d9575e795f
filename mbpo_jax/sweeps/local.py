"""Training the groups of a sweep on this machine, one process after the other.

Each group gets a process of its own and all devices, so that one that dies takes nothing with it.
"""

import signal
import time

from mbpo_jax.sweeps import process
from mbpo_jax.sweeps.process import Work
from mbpo_jax.sweeps.store import Unit
from mbpo_jax.training import run_directory

LOOK_EVERY = 1.0
"""Seconds between looks at a process."""


def train_all(work: Work) -> None:
    """Train all units that are not over, until they are or an interruption.

    Units that another driver trains are left to it; if it dies, they are taken over.

    Raises:
      ConfigError: the disk is full, or memory is.
    """
    told: set[str] = set()
    while not work.interruption.requested and (pending := work.pending):
        free = next((unit for unit in pending if not run_directory.holder(unit.path)), None)
        if free is not None:
            _train(work, free)
            continue
        for unit in pending:
            if unit.name not in told:
                told.add(unit.name)
                work.announce(f"{unit.name}: left to {run_directory.holder(unit.path)}")
        work.look(())
        time.sleep(LOOK_EVERY)


def _train(work: Work, unit: Unit) -> None:
    began = "resumed" if unit.state in ("running", "interrupted") else "started"
    work.announce(f"{unit.name}: {began}, {len(unit.group.runs)} runs")
    training = process.start(work.sweep_dir, unit)
    asked = False
    while training.poll() is None:
        if work.interruption.requested and not asked:
            asked = True
            work.announce(f"{unit.name}: is asked to save and stop")
            training.send_signal(signal.SIGTERM)
        work.look((unit,))
        time.sleep(LOOK_EVERY)
    work.announce(process.told_end(unit, training.returncode))
