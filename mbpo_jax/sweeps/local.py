"""Training the groups of a sweep on this machine, one process after the other.

Each group gets a process of its own and all devices, so that one that dies takes nothing with it.
"""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mbpo_jax.sweeps import process
from mbpo_jax.sweeps.store import OVER, Unit
from mbpo_jax.training import run_directory
from mbpo_jax.training.driver import Interruption

LOOK_EVERY = 1.0
"""Seconds between looks at a process."""


def train_all(
    sweep_dir: Path,
    units: Sequence[Unit],
    interruption: Interruption,
    look: Callable[[Sequence[Unit]], None],
    announce: Callable[[str], None],
) -> None:
    """Train all units that are not over, until they are or an interruption.

    Units that another driver trains are left to it; if it dies, they are taken over.

    Args:
      sweep_dir: of the sweep.
      units: of the sweep.
      interruption: asks for an end.
      look: called again and again with the units that are being trained.
      announce: told what happens, in lines.
    """
    told: set[str] = set()
    while not interruption.requested:
        pending = [unit for unit in units if unit.state not in OVER]
        if not pending:
            return
        free = next((unit for unit in pending if not run_directory.holder(unit.path)), None)
        if free is not None:
            _train(sweep_dir, free, interruption, look, announce)
            continue
        for unit in pending:
            if unit.name not in told:
                told.add(unit.name)
                announce(f"{unit.name}: left to {run_directory.holder(unit.path)}")
        look(())
        time.sleep(LOOK_EVERY)


def _train(
    sweep_dir: Path,
    unit: Unit,
    interruption: Interruption,
    look: Callable[[Sequence[Unit]], None],
    announce: Callable[[str], None],
) -> None:
    began = "resumed" if unit.state in ("running", "interrupted") else "started"
    announce(f"{unit.name}: {began}, {len(unit.group.runs)} runs")
    training = process.start(sweep_dir, unit)
    asked = False
    while training.poll() is None:
        if interruption.requested and not asked:
            asked = True
            announce(f"{unit.name}: is asked to save and stop")
            training.send_signal(signal.SIGTERM)
        look((unit,))
        time.sleep(LOOK_EVERY)
    announce(process.told_end(unit, training.returncode))
