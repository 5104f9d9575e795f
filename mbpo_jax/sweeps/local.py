"""Training the groups of a sweep on this machine, one process after the other.

Each group gets a process of its own and all devices, so that one that dies takes nothing with it.
"""

import signal
import time

from mbpo_jax.signals import ends_with_us
from mbpo_jax.sweeps import process
from mbpo_jax.sweeps.process import NoRoom, Work
from mbpo_jax.sweeps.store import Unit
from mbpo_jax.training import run_directory

LOOK_EVERY = 1.0
"""Seconds between looks at a process."""


def train_all(work: Work) -> None:
    """Train all units that are not over, until they are or an interruption.

    Units that another driver trains are left to it; if it dies, they are taken over. A unit that
    does not fit the memory is left until all others are done.

    Raises:
      ConfigError: units are left that do not fit.
      DiskError: the disk is full, or the like.
    """
    told: set[str] = set()
    too_large: dict[str, NoRoom] = {}
    while not work.interruption.requested and (pending := work.pending):
        held = {unit.name: run_directory.holder(unit.path) for unit in pending}
        free = [unit for unit in pending if not held[unit.name] and unit.name not in too_large]
        if free:
            try:
                _train(work, free[0])
            except NoRoom as problem:
                work.announce(str(problem))
                too_large[free[0].name] = problem
            continue
        if not any(held.values()):
            raise too_large[pending[0].name]
        for name, holder in held.items():
            if holder and name not in told:
                told.add(name)
                work.announce(f"{name}: left to {holder}")
        work.look(())
        time.sleep(LOOK_EVERY)


def _train(work: Work, unit: Unit) -> None:
    began = "resumed" if unit.state in ("running", "interrupted") else "started"
    work.announce(f"{unit.name}: {began}, {len(unit.group.runs)} runs")
    training = process.start(work.sweep_dir, unit)
    asked = False
    with ends_with_us(training.kill):
        while training.poll() is None:
            if work.interruption.requested and not asked:
                asked = True
                work.announce(f"{unit.name}: is asked to save and stop")
                training.send_signal(signal.SIGTERM)
            work.look((unit,))
            time.sleep(LOOK_EVERY)
    work.announce(process.told_end(unit, training.returncode))
