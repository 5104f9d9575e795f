"""What faults are made against: small trainings, how they are started and what they come to."""

import json
import multiprocessing
import multiprocessing.process
import os
import runpy
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RUN = "run"
"""Folder that a training writes, within its own."""
PATIENCE = 600.0
"""Seconds after which a process hangs, on however busy a machine."""

_FORKS = multiprocessing.get_context("forkserver")
# Most of a short training's time is spent on loading: a process is forked from one that has loaded
# all that a training needs, and has not touched a device.
_FORKS.set_forkserver_preload(
    ["mbpo_jax.cli", "mbpo_jax.training.driver", "mbpo_jax.api", "orbax.checkpoint.v1"]
)

_TRAIN = (
    *("--preset", "debug", "--random-steps", "20", "--steps-per-fit", "10", "--run-dir", RUN),
    *("--eval-every", "20", "--checkpoint-every", "10", "--env.episode-length", "20"),
)
_SAC = ("--algorithm", "sac", "--total-env-steps", "100")
_SWEEP = {
    "environments": ["maze"],
    "algorithms": ["dyna_q"],
    "presets": ["debug"],
    "seeds": 2,
    "settings": {
        "env": {"episode_length": 20},
        "random_steps": 20,
        "steps_per_fit": 10,
        "eval_every": 20,
        "checkpoint_every": 10,
        "total_env_steps": 100,
    },
    # Two groups, as this shapes a program.
    "variants": [{"tabular.planning_steps": 5}, {"tabular.planning_steps": 6}],
}


class Training(NamedTuple):
    """A command that trains.

    Attributes:
      command: what follows `mbpo-jax`.
      weight: how often it is chosen.
      is_whole: it is a process from its first import on, and draws its figures; else it is forked,
        and draws none, which takes half of the time.
    """

    command: tuple[str, ...]
    weight: int = 1
    is_whole: bool = False


TRAININGS = {
    "tabular": Training(
        ("train", "maze", "--algorithm", "dyna_q", "--total-env-steps", "120", *_TRAIN), weight=16
    ),
    "sac": Training(("train", "pendulum", *_TRAIN, *_SAC), weight=6),
    "seeds": Training(("train", "pendulum", *_TRAIN, *_SAC, "--num-seeds", "3")),
    "mbpo": Training(("train", "pendulum", *_TRAIN, "--total-env-steps", "80")),
    "gymnasium": Training(("train", "gym/InvertedPendulum-v5", *_TRAIN, *_SAC)),
    "whole": Training(
        ("train", "maze", "--algorithm", "dyna_q", "--total-env-steps", "80", *_TRAIN),
        is_whole=True,
    ),
    "sweep": Training(("sweep", "sweep.yaml", "--out", RUN), is_whole=True),
}


def lay_out(folder: Path) -> Path:
    """Make the folder of a training, with what it needs in it."""
    (folder / "temporary").mkdir(parents=True)
    (folder / "sweep.yaml").write_text(json.dumps(_SWEEP))  # which is YAML, too
    return folder


def start(training: Training, folder: Path, output: Path) -> multiprocessing.process.BaseProcess:
    """Start a training in its folder and return once its process runs code of its own."""
    process = _FORKS.Process(target=_train, args=(training, folder, output))
    process.start()
    while not output.exists() and process.is_alive():
        time.sleep(0.001)
    return process


def _train(training: Training, folder: Path, output: Path) -> None:
    """Become the training: what it prints goes to a file, as that of a job does."""
    try:
        descriptor = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder / "temporary")
        if training.is_whole:
            os.execv(sys.executable, [sys.executable, "-m", "mbpo_jax", *training.command])
        without_figures()
        sys.argv = ["mbpo-jax", *training.command]
        runpy.run_module("mbpo_jax", run_name="__main__")
    except KeyboardInterrupt:  # outside of the program, where Python would do as much
        sys.exit(130)


def without_figures() -> None:
    """Have trainings of this process draw nothing."""
    from mbpo_jax.training import driver, playback

    driver.draw_figures = lambda *_, **__: None
    playback.render = lambda env, config, run_dir, *_, **__: playback.Shown(run_dir, [])


class Straight(NamedTuple):
    """A training that nothing disturbed.

    Attributes:
      training: its command.
      folder: it was made in.
    """

    training: Training
    folder: Path


class Workshop:
    """Where a campaign works: a folder, a seed, and the undisturbed trainings, each made once.

    Attributes:
      seconds: of a start of each training that nothing disturbed, the shortest so far.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.seconds: dict[str, float] = {}
        self._straight: dict[str, Straight] = {}
        self._locks = {name: threading.Lock() for name in TRAININGS}

    def straight(self, name: str) -> Straight:
        """Return an undisturbed training.

        Raises:
          RuntimeError: it does not even end well by itself.
        """
        with self._locks[name]:
            if name not in self._straight:
                self._straight[name] = self._made(name)
            return self._straight[name]

    def _made(self, name: str) -> Straight:
        training, folder = TRAININGS[name], lay_out(self.folder / "straight" / name)
        began, output = time.monotonic(), folder / "output.txt"
        process = start(training, folder, output)
        process.join(PATIENCE)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(
                f"{name}, undisturbed: exit code {process.exitcode}\n{output.read_text()}"
            )
        self.seconds[name] = time.monotonic() - began
        return Straight(training, folder)


def run_dirs(folder: Path) -> list[Path]:
    """Return the run directories of a training: its own, or those of a sweep's groups."""
    groups = folder / RUN / "groups"
    return sorted(groups.glob("*/")) if groups.is_dir() else [folder / RUN]


def differences(folder: Path, straight: Path) -> list[str]:
    """Return in what a training that has ended is not what the undisturbed one came to."""
    found = []
    pairs = [{p.name: p for p in run_dirs(where)} for where in (folder, straight)]
    for name in sorted(pairs[0].keys() | pairs[1].keys()):
        if not all(name in pair for pair in pairs):
            found.append(f"{name} is in one of them only")
            continue
        ours, theirs = (numbers(pair[name]) for pair in pairs)
        parts = sorted(ours.keys() | theirs.keys())
        found += [f"{name}: {part} differs" for part in parts if ours.get(part) != theirs.get(part)]
    return found


def numbers(run_dir: Path) -> dict[str, Any]:
    """Return all of a run directory that has to be the same whatever happened on the way."""
    found: dict[str, Any] = {}
    for name in ("metrics.jsonl", "gradients.jsonl", "config.yaml", "runs.json"):
        found[name] = path.read_bytes() if (path := run_dir / name).exists() else None
    rows = (run_dir / "evals.jsonl").read_bytes()
    try:
        found["evals.jsonl"] = [timeless(json.loads(row)) for row in rows.splitlines()]
    except ValueError:  # what is damaged and still there differs as it is
        found["evals.jsonl"] = rows
    found["status.json"] = timeless(json.loads((run_dir / "status.json").read_text()))
    saved = sorted(p for p in (run_dir / "checkpoints").iterdir() if p.name.isdecimal())
    found["checkpoint"] = saved[-1].name
    found["host.json"] = timeless(json.loads((saved[-1] / "host.json").read_text()))
    for tree in sorted(p for p in saved[-1].iterdir() if p.is_dir()):
        found |= {f"{tree.name}/{name}": value for name, value in arrays(tree / "state").items()}
    return found


def timeless(value: Any) -> Any:
    """Leave out of a JSON value what the clock decides: seconds, and sizes of rows with them."""
    if isinstance(value, dict):
        clock = ("wall_seconds", "compile_seconds", "log")
        return {name: timeless(item) for name, item in value.items() if name not in clock}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def arrays(folder: Path) -> dict[str, bytes]:
    """Return the arrays that Orbax has written into a folder, as the bytes of their chunks."""
    import tensorstore

    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    return {name.decode(): store.read(name).result().value for name in store.list().result()}


def left_over(folder: Path, straight: Path) -> list[str]:
    """Return what a training that has ended should not have left, or has left out."""
    found = [f"temporary file {path.name}" for path in (folder / "temporary").iterdir()]
    for path in sorted((folder / RUN).rglob("*")):
        if path.name.endswith(".tmp") or path.name.startswith("partial-") or ".orbax" in path.name:
            found.append(f"temporary file {path.relative_to(folder)}")
    wanted = {path.name for path in (straight / RUN).iterdir()}
    found += [f"{name} is missing" for name in wanted - {p.name for p in (folder / RUN).iterdir()}]
    deadline = time.monotonic() + 10.0
    while (alive := list(processes_in(folder))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [*found, *(f"process {pid} is left" for pid in alive)]


def processes_in(folder: Path) -> Iterator[int]:
    """Yield the processes that work in a folder; whoever a training starts inherits it."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                yield int(entry.name)
        except OSError:  # it has ended, or is another user's
            continue
