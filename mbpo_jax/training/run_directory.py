"""A run's directory: who may write to it, and whether it belongs to this configuration."""

import contextlib
import datetime
import difflib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mbpo_jax import config_io
from mbpo_jax.config import Config, EnvConfig, file_name
from mbpo_jax.config.reading import defaults
from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.files import (
    make_directory,
    read_json,
    replacing,
    to_plain,
    write_json_atomic,
    writing,
)
from mbpo_jax.training import logs
from mbpo_jax.training.group import Group, group_of, restored
from mbpo_jax.yaml_files import read_yaml

CONFIG = "config.yaml"
RUNS = "runs.json"
"""In what runs differ, where that is more than seeds in a row."""
CHECKPOINTS = "checkpoints"
STATUS = "status.json"
ENVIRONMENT = "environment.json"
LOCK = ".lock"


def default(config: Config, presets: Sequence[str] = ()) -> Path:
    """Return where a run goes if the user does not say: a name for what is often varied."""
    usual = (EnvConfig().backend, "analytic", "mujoco", "own")
    varied = [] if config.env.backend in usual else [config.env.backend]
    varied += [config.algorithm, *([config.model] if config.model == "oracle" else [])]
    last = config.seed + config.num_seeds - 1
    seeds = str(config.seed) if config.num_seeds == 1 else f"{config.seed}-{last}"
    names = [config.env.name, *varied, *presets]
    return Path("runs", "-".join([*map(file_name, names), seeds]))


def checkpoints(directory: Path) -> list[Path]:
    """Return the finished checkpoints in a directory, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())


def begins(run_dir: Path, init_from: Path) -> bool:
    """Say whether a run would begin in a directory, or go on there.

    Args:
      run_dir: the directory.
      init_from: the run with which it is to begin, or was begun.

    Raises:
      ConfigError: it was begun otherwise.
    """
    there = read_state(run_dir) in ("finished", "diverged")
    if not there and not checkpoints(run_dir / CHECKPOINTS):
        return True
    # Which says nothing if it was emptied, and whoever asks shall know why.
    before = read_json(run_dir / ENVIRONMENT) if (run_dir / ENVIRONMENT).exists() else {}
    known = [each.get("init_from") for each in (before, *before.get("earlier", []))]
    if not any(_lies_at(each, init_from, run_dir) for each in known):
        raise ConfigError(
            f"init_from: {run_dir} was not begun with {init_from}; choose another run directory, "
            "or leave it out to go on with what is there"
        )
    return False


def place_of(run: Path, run_dir: Path) -> dict[str, str]:
    """Return where another run lies, in all and seen from here: one of them outlasts a move."""
    run = run.resolve()
    return {"run": str(run), "from_here": os.path.relpath(run, run_dir.resolve())}


def _lies_at(noted: Any, run: Path, run_dir: Path) -> bool:
    """Say whether one of the places of `place_of` is where a run lies now."""
    if not isinstance(noted, dict):
        return False
    # Earlier versions noted the first one as it was written, seen from where one stood.
    seen_from = {"run": Path.cwd(), "from_here": run_dir.resolve()}
    return any(
        isinstance(noted.get(key), str) and (base / noted[key]).resolve() == run.resolve()
        for key, base in seen_from.items()
    )


@contextlib.contextmanager
def opened(run_dir: Path, group: Group) -> Iterator[bool]:
    """Hold a run directory for this process, making it if need be.

    Yields:
      Whether its runs are finished.

    Raises:
      Busy: another process trains in it.
      ConfigError: it belongs to another configuration.
      DiskError: it cannot be made or written to.
    """
    make_directory(run_dir)
    with writing(run_dir):
        _refuse_foreign(run_dir)
        lock = open(run_dir / LOCK, "a+")  # noqa: SIM115 - held until the block ends
    with lock:
        # The lock goes with the process, so a killed run leaves none behind.
        try:
            is_ours = _locked(lock)
        except OSError as error:
            raise ConfigError(
                f"cannot lock {run_dir / LOCK}: {error.strerror}; choose a directory on a file "
                "system that has locks"
            ) from error
        if not is_ours:
            raise Busy(
                f"another process trains in {run_dir} ({_described(lock)}); wait for it, or choose "
                "another --run-dir"
            )
        is_finished = _claim(run_dir, group)
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = {"host": socket.gethostname(), "process": os.getpid(), "started": began}
        with writing(run_dir / LOCK):
            lock.truncate(0)
            # Not by the file's own buffer, which would be tried again when it is closed.
            os.write(lock.fileno(), json.dumps(facts).encode())
        yield is_finished


class Busy(ConfigError):
    """Another process trains in a run directory."""


def holder(run_dir: Path) -> str | None:
    """Say which process trains in a run directory; None if there is none, or it is dead."""
    try:
        with open(run_dir / LOCK) as lock:  # which who may only read can do, too
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _described(lock)
    except OSError:
        pass
    return None


def _locked(lock: TextIO) -> bool:
    """Take a lock, for which whoever asks for the `holder` may stand in the way for a moment."""
    for _ in range(4):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return True
    return False


def _described(lock: TextIO) -> str:
    try:
        lock.seek(0)
        facts = json.load(lock)
        return f"process {facts['process']} on {facts['host']}, since {facts['started']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "which has not said who it is"


def _refuse_foreign(run_dir: Path) -> None:
    """Raise an error where files of another origin have the names that a run would write."""
    if any((run_dir / name).exists() for name in (LOCK, STATUS, ENVIRONMENT)):
        return
    foreign = [name for name in (CONFIG, *logs.ROW_FILES) if (run_dir / name).exists()]
    if foreign:
        raise ConfigError(
            f"{run_dir} is no run directory, and training there would overwrite "
            f"{' and '.join(foreign)}; choose another --run-dir"
        )


def outlook(run_dir: Path, group: Group) -> str:
    """Say in words what is in a directory, and what `opened` would make of it for these runs."""
    state = read_state(run_dir)
    there = f"there: {state}" if state else "new"
    try:
        _refuse_foreign(run_dir)
        begins = _foreseen(run_dir, group) is None
    except ConfigError as problem:
        return f"{there}, and refused: {str(problem).partition(chr(10))[0].rstrip(':')}"
    return f"{there}, which begins anew" if begins and state else there


def _claim(run_dir: Path, group: Group) -> bool:
    """Check that a directory may be used for these runs, and say whether they are finished.

    What is there stays as it is, so that nothing has changed if it cannot be gone on with; where
    there is nothing that could be lost, the runs are written down.
    """
    changes = _foreseen(run_dir, group)
    if changes is None:
        write_group(run_dir, group)
        (run_dir / ENVIRONMENT).unlink(missing_ok=True)  # nothing is resumed
        return False
    if changes:
        print(
            f"{run_dir} goes on to another end, with its schedules as they were: "
            f"{'; '.join(changes)}"
        )
        return False
    return read_state(run_dir) == "finished"


def _foreseen(run_dir: Path, group: Group) -> list[str] | None:
    """Return what these runs change of those in a directory; None if nothing is lost there.

    Raises:
      ConfigError: they are others, or cannot go on there.
    """
    state, has_checkpoint = read_state(run_dir), bool(checkpoints(run_dir / CHECKPOINTS))
    has_begun = has_checkpoint or state in ("finished", "diverged")
    if not has_begun or not (run_dir / CONFIG).exists():
        return None
    known = load_group(run_dir)
    if group == known:
        return []
    changes = config_io.diff_configs(known.config, group.config) or ["the runs' own settings"]
    there = config_io.paths(read_yaml(run_dir / CONFIG))
    if missing := [path for path in defaults() if path not in there]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        changes.append(
            f"({CONFIG} does not have {missing[0]}{more}: it is of an earlier version, or was cut "
            "off; then restore it from a copy)"
        )
    if group != known.lengthened(group.config):
        raise ConfigError(
            f"{run_dir} holds a run of another configuration:\n  "
            + "\n  ".join(changes)
            + "\nChoose another --run-dir, or give the settings of that run to resume it"
        )
    if not has_checkpoint:
        raise ConfigError(
            f"{run_dir} has no checkpoint from which it could go on; choose another --run-dir"
        )
    return changes


def lengthen(run_dir: Path, group: Group) -> None:
    """Write down that runs are to go on to another end, in a directory that is held."""
    # In this order: who is stopped between the two is asked to go on once more.
    if read_state(run_dir) in ("finished", "diverged"):
        write_status(run_dir, "interrupted")
    write_group(run_dir, group)


def write_group(run_dir: Path, group: Group) -> None:
    """Write down what is trained in a run directory."""
    if group == group_of(group.config):
        (run_dir / RUNS).unlink(missing_ok=True)
    else:
        write_json_atomic(run_dir / RUNS, to_plain(group.differences()))
    with replacing(run_dir / CONFIG) as file:
        file.write(config_io.dump_yaml(group.config).encode())


def load_group(run_dir: Path) -> Group:
    """Read what is trained in a run directory.

    Raises:
      ConfigError: there is no configuration, or it cannot be read.
    """
    config, path = load_config(run_dir), run_dir / RUNS
    if not path.exists():
        return group_of(config)
    try:
        return restored(config, read_json(path), str(path))
    except UserError as error:
        raise ConfigError(*error.args) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; restore it from a copy") from error


def _near(path: Path) -> str:
    """Return advice on where a run directory may be that is not here."""
    if path.is_file():
        return f"; it is a file, whose folder is {path.parent}"
    for depth in ("*", "*/*", "*/*/*"):  # of runs, of a sweep, of sweeps
        if below := sorted(path.glob(f"{depth}/{CONFIG}"))[:1]:
            return f"; there are some in it, such as {below[0].parent}"
    beside = {found.parent.name: found.parent for found in path.parent.glob(f"*/{CONFIG}")}
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {beside[near[0]]}?" if near else ""


def load_config(run_dir: Path) -> Config:
    """Read the configuration that a run directory was made with.

    Raises:
      ConfigError: there is none, or it cannot be read.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise ConfigError(f"{run_dir} is no run directory: it has no {CONFIG}{_near(run_dir)}")
    content = read_yaml(path)
    if not content:
        raise ConfigError(
            f"{path} is empty; restore it from a copy, or delete it and give `train` the settings "
            f"of that run, which {ENVIRONMENT} may tell"
        )
    return config_io.apply(Config(), _as_now(content, path), str(path))


def _as_now(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return settings that an earlier version wrote as they are called now.

    Raises:
      ConfigError: they are of an algorithm that is there no more.
    """
    gone = {"pg": "lr_gae", "bptt": "rp"}.get(str(content.get("algorithm")))
    if gone:
        raise ConfigError(
            f"{path}: {content['algorithm']} is policy_search with policy_search.gradient={gone} "
            "now, and its runs cannot go on; train anew, or use the version that environment.json "
            "names"
        )
    fit = content.get("fit")
    if isinstance(fit, dict) and "cold_factor" not in fit:
        if fit.get("stopping") == "fixed":
            fit = {**fit, "stopping": "budget", "cold_factor": 1}
        else:  # which does not read it, and it had another default
            fit = {name: value for name, value in fit.items() if name != "num_steps"}
        content = {**content, "fit": fit}
    # A group of settings that nobody reads any more.
    return {name: value for name, value in content.items() if name != "search"}


def write_environment(run_dir: Path, info: dict[str, Any]) -> None:
    """Say in `environment.json` where the run goes on; under `earlier`, where it was before."""
    try:
        before = read_json(run_dir / ENVIRONMENT)
        earlier = [*before.pop("earlier", []), before]
    except FileNotFoundError:
        earlier = []
    except (UserError, OSError, LookupError, AttributeError, TypeError) as problem:
        # Nothing that is trained depends on it, but whoever reads it shall know that it has a gap.
        print(f"warning: {problem}, if you want to know where the run was before")
        earlier = [{"lost": str(problem)}]
    write_json_atomic(run_dir / ENVIRONMENT, {**info, "earlier": earlier})


def read_environment(run_dir: Path) -> dict[str, Any]:
    """Return what `environment.json` says, {} if it is not there or cannot be read."""
    try:
        found = json.loads((run_dir / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_state(run_dir: Path) -> str | None:
    """Return what `status.json` says of the run, None if it is not there or cannot be read."""
    try:
        return json.loads((run_dir / STATUS).read_text())["state"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_status(run_dir: Path, state: str, **facts: Any) -> None:
    """Say in `status.json` how the run stands: running, interrupted, finished or diverged."""
    write_json_atomic(run_dir / STATUS, {"state": state, **facts})
