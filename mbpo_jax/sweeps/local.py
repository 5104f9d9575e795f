"""Training the groups of a sweep on this machine, one process after the other.

Each group gets a process of its own and all devices, so that one that dies takes nothing with it.
"""

import datetime
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mbpo_jax.sweeps.store import OUTPUT, Unit
from mbpo_jax.sweeps.worker import EXIT_BUSY, command_of
from mbpo_jax.training import run_directory
from mbpo_jax.training.driver import EXIT_DIVERGED, EXIT_DONE, EXIT_INTERRUPTED, Interruption

LOOK_EVERY = 1.0
"""Seconds between looks at a process."""

OVER = ("finished", "diverged", "failed")


def train_all(
    sweep_dir: Path,
    units: Sequence[Unit],
    interruption: Interruption,
    look: Callable[[Unit | None], None],
    announce: Callable[[str], None],
) -> None:
    """Train all units that are not over, until they are or an interruption.

    Units that another driver trains are left to it; if it dies, they are taken over.

    Args:
      sweep_dir: of the sweep.
      units: of the sweep.
      interruption: asks for an end.
      look: called again and again with the unit that is being trained, if any.
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
        look(None)
        time.sleep(LOOK_EVERY)


def _train(
    sweep_dir: Path,
    unit: Unit,
    interruption: Interruption,
    look: Callable[[Unit | None], None],
    announce: Callable[[str], None],
) -> None:
    """Train one unit in a process of its own, and note if that fails."""
    began = "resumed" if unit.state in ("running", "interrupted") else "started"
    announce(f"{unit.name}: {began}, {len(unit.group.runs)} runs")
    with open(unit.path / OUTPUT, "ab") as output:
        # In a session of its own, so that Ctrl-C reaches it once, through us.
        process = subprocess.Popen(
            command_of(sweep_dir, unit.name),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        asked = False
        while process.poll() is None:
            if interruption.requested and not asked:
                asked = True
                announce(f"{unit.name}: is asked to save and stop")
                process.send_signal(signal.SIGTERM)
            look(unit)
            time.sleep(LOOK_EVERY)
    code = process.returncode
    if code in (EXIT_DONE, EXIT_DIVERGED, EXIT_BUSY):
        if code != EXIT_BUSY:
            announce(f"{unit.name}: {unit.state}")
        return
    if code == EXIT_INTERRUPTED or interruption.requested:
        announce(f"{unit.name}: interrupted")
        return
    reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    unit.add_failure(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        reason=reason,
        last_line=last_line(unit.path / OUTPUT),
    )
    again = "given up" if unit.state == "failed" else "tried again"
    announce(
        f"{unit.name}: failed ({reason}) and is {again}; see {unit.path / OUTPUT}: "
        f"{unit.failures[-1]['last_line']}"
    )


def last_line(path: Path) -> str:
    """Return the last line that is not empty of a text file, cut to a readable length."""
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, 2) - 4096, 0))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]
