"""What a process of a sweep does: plan its memory, or train one group."""

import contextlib
import functools
import multiprocessing
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mbpo_jax import config_io
from mbpo_jax.config import Config
from mbpo_jax.envs import make_env
from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.exit_codes import Outcome
from mbpo_jax.signals import HANDLED, ends_with_us
from mbpo_jax.sweeps import store
from mbpo_jax.sweeps.process import command_of
from mbpo_jax.training import devices, driver, plan, run_directory
from mbpo_jax.training.group import Group
from mbpo_jax.training.layout import Setup, set_up


def train_unit(
    sweep_dir: Path, name: str
) -> Outcome | Literal["busy", "too large", "cannot write"]:
    """Train a group of a sweep, or go on with it, and say how that ended.

    Raises:
      ConfigError: there is no such group, or it cannot be trained here.
    """
    unit = store.find_unit(sweep_dir, name)
    try:
        return driver.train_group(
            unit.group,
            unit.path,
            command_of(sweep_dir, name),
            log=store.trackers_of(store.content_of(sweep_dir)),
            part_of=sweep_dir.resolve().name,
        )
    except run_directory.Busy as busy:
        print(busy)
        return "busy"
    except plan.TooLarge as problem:
        if run_directory.holder(unit.path):  # by whom the memory is used, perhaps
            return "busy"
        print(problem)
        return "too large"
    except DiskError as problem:
        with contextlib.suppress(OSError):  # what is printed may lie on the same disk
            print(problem, flush=True)
        return "cannot write"


class Planned(NamedTuple):
    """What a sweep would do, and what its groups need.

    Attributes:
      plan: units that are there, and those that are not.
      memory: of every new unit, in words.
      devices: of this machine, in words.
    """

    plan: store.Plan
    memory: list[str]
    devices: list[str]


def planned(
    sweep_dir: Path, runs: Sequence[Config], runs_per_group: int | None, fits_here: bool
) -> Planned:
    """Plan a sweep in a process of its own, which leaves the device free when it ends.

    Args:
      sweep_dir: of the sweep; it need not be there.
      runs: what the sweep file asks for.
      runs_per_group: the most; as many as fit if None.
      fits_here: groups have to fit the devices of this machine.

    Raises:
      ConfigError: an environment is unknown, a run does not fit a device, or the process died.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    asked = sweep_dir, list(runs), runs_per_group, fits_here
    process = context.Process(target=_send_planned, args=(sender, *asked), daemon=True)

    def end() -> None:
        if process.pid is not None:
            process.kill()

    with receiver, ends_with_us(end):
        with _signals_kept_from_children():
            process.start()
        sender.close()
        try:
            found = receiver.recv()
        except EOFError as error:
            raise ConfigError(
                "the process that plans the sweep was killed, perhaps for want of memory; close "
                "other programs and give the same command again"
            ) from error
    process.join()
    if isinstance(found, Exception):
        raise found
    return found


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Start processes that signals do not reach, as those to all of a terminal: they end with us.

    A thread starts with what the thread that starts it blocks, and so does a process.
    """
    resource_tracker.ensure_running()  # which would let them through
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _send_planned(sender: Connection, *asked: Any) -> None:
    try:
        found = _planned(*asked)
    except Exception as problem:
        problem.add_note(traceback.format_exc())  # the frames themselves cannot be sent
        found = problem
    sender.send(found)


def _planned(
    sweep_dir: Path, runs: Sequence[Config], runs_per_group: int | None, fits_here: bool
) -> Planned:
    devices.use_host_devices(len(runs))
    env_of = functools.cache(make_env)

    @functools.cache  # for most groups hold all the runs that they could
    def setup_of(group: Group) -> Setup:
        return set_up(group, env_of(group.config.env))

    def most_runs(group: Group) -> int:
        most = min(len(group.runs), runs_per_group or len(group.runs))
        return min(most, plan.most_runs(setup_of(group))) if fits_here else most

    found = store.plan(sweep_dir, runs, most_runs)
    needs = plan.check_fits if fits_here else plan.plan_memory
    groups = [unit.group for unit in (*found.longer, *found.new)]
    memory = [plan.describe_memory(needs(setup_of(group))) for group in groups]
    return Planned(found, memory, devices.describe_devices())


def runs_of(units: Sequence[store.Unit]) -> int:
    """Return the number of runs of all units."""
    return sum(len(unit.group.runs) for unit in units)


def described(group: Group, fields: Sequence[str]) -> str:
    """Say in a line what the runs of a group are, by their seeds and some of their settings."""
    flat = [config_io.flatten(run) for run in group.runs]
    values = {path: list(dict.fromkeys(run[path] for run in flat)) for path in ("seed", *fields)}
    seeds = len(values.pop("seed"))
    return ", ".join(
        [
            f"{seeds} seed{'s' if seeds > 1 else ''}",
            *(f"{path} {_listed(found)}" for path, found in values.items()),
        ]
    )


def _listed(values: Sequence) -> str:
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return "|".join(texts) if len(texts) <= 4 else f"{texts[0]}..{texts[-1]} ({len(texts)})"
