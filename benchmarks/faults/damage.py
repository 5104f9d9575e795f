"""Files of run directories, damaged: the same command ends as if nothing had been, or refuses."""

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.in_process import Ending, attempt, captured
from benchmarks.faults.record import EQUAL, REFUSED, Fault, judged, rng_of
from benchmarks.faults.trainings import (
    RUN,
    Straight,
    Workshop,
    differences,
    lay_out,
    start,
    timeless,
)

NAMES = ("tabular", "sac")
FOR_PEOPLE = ("tensorboard", "environment.json", ".lock")
"""What nothing is read from that a number depends on; it is damaged, too, but less often."""
TOLD = "is corrupt"
"""Said of a checkpoint that is passed over, so that an older one is read."""


class Subject(NamedTuple):
    """A run directory that can be damaged.

    Attributes:
      straight: the undisturbed training.
      folder: in which the run lies as it is before the damage.
      is_finished: it is finished; else it was killed half way.
    """

    straight: Straight
    folder: Path
    is_finished: bool


def make(
    seed: int,
    number: int,
    folder: Path,
    subjects: Sequence[Subject],
    sorts: Sequence[str] | None = None,
) -> Fault:
    """Damage one or two files of a run, give its command again, and read it.

    Args:
      seed: of the campaign.
      number: of this fault.
      folder: to work in.
      subjects: runs to choose from.
      sorts: of damage to choose from; all if None.
    """
    rng = rng_of(seed, "damage", number)
    subject = rng.choice(subjects)
    folder = folder / f"damage-{number}"
    shutil.copytree(subject.folder / RUN, folder / RUN)
    done = [
        damage(rng, folder / RUN, sorts or list(SORTS)) for _ in range(rng.choice((1, 1, 1, 2)))
    ]
    fault = check(subject, folder, ", ".join(done))
    shutil.rmtree(folder)
    return fault


def subjects_of(workshop: Workshop) -> list[Subject]:
    """Return runs that can be damaged: each finished, and killed half way."""
    found = []
    for straight in map(workshop.straight, NAMES):
        folder = lay_out(workshop.folder / "killed" / straight.folder.name)
        process = start(straight.training, folder, folder / "output.txt")
        rows = folder / RUN / "metrics.jsonl"
        while process.is_alive() and not (rows.exists() and rows.read_bytes().count(b"\n") >= 4):
            time.sleep(0.001)
        process.kill()
        process.join()
        found += [Subject(straight, straight.folder, True), Subject(straight, folder, False)]
    return found


def check(subject: Subject, folder: Path, what: str) -> Fault:
    """Give the command of a damaged run again, read it, and judge what comes of it."""
    straight, state = subject.straight, "finished" if subject.is_finished else "killed"
    what = f"{straight.folder.name}, {state}: {what}"
    ending = attempt(straight.training.command, folder)
    problems = ending.problems()
    if problems:
        return judged(what, problems, ending.output)
    if ending.code:
        return judged(what, nothing_lost(subject, folder), ending.output, REFUSED)
    if not subject.is_finished:
        problems = differences(folder, straight.folder)
    read, numbers = reading(folder)
    problems += read.problems()
    is_told = read.code or TOLD in read.output
    if not is_told and numbers != reading(straight.folder)[1]:
        problems.append("it is read with other numbers, and nothing is said")
    return judged(what, problems, ending.output + read.output, REFUSED if is_told else EQUAL)


def nothing_lost(subject: Subject, folder: Path) -> list[str]:
    """Return in what a refused run, made whole again, does not go on as before."""
    for path in sorted((subject.folder / RUN).rglob("*")):
        copy = folder / path.relative_to(subject.folder)
        if path.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    # What was put between them is no part of it.
    for path in sorted((folder / RUN / "checkpoints").rglob("*")):
        if path.is_file() and not (subject.folder / path.relative_to(folder)).exists():
            path.unlink()
    ending = attempt(subject.straight.training.command, folder)
    problems = ending.problems(allowed=(0,)) or differences(folder, subject.straight.folder)
    return [f"refused and restored from a copy: {problem}" for problem in problems]


def reading(folder: Path) -> tuple[Ending, dict[str, Any]]:
    """Read a run as its users do."""
    import jax

    from mbpo_jax import load
    from mbpo_jax.errors import UserError

    found: dict[str, Any] = {}

    def read() -> int:
        try:
            run = load(RUN)
            found["state"] = run.state
            found["evals"] = [timeless(row) for row in run.evals.to_dict("records")]
            found["metrics"] = run.metrics.to_csv()
            leaves = jax.tree.leaves(jax.device_get(run.learned()))
            found["learned"] = [leaf.tobytes() for leaf in leaves]
        except UserError as error:
            print("mbpo-jax: ", error)
            return 2
        return 0

    return captured(read, folder), found


def damage(rng: random.Random, run_dir: Path, sorts: Sequence[str]) -> str:
    """Damage a file of a run directory; return what was done to which."""
    files = [path for path in sorted(run_dir.rglob("*")) if path.is_file()]
    kinds = sorted({path.relative_to(run_dir).parts[0] for path in files})
    matters = [kind for kind in kinds if kind not in FOR_PEOPLE and not kind.endswith(".png")]
    # Half of them in checkpoints, the others of all sorts, however many files each has.
    kind = rng.choice(["checkpoints"] * len(matters) + matters * 2 + kinds)
    path = rng.choice([path for path in files if path.relative_to(run_dir).parts[0] == kind])
    how = rng.choice(sorts)
    SORTS[how](rng, path, files)
    return f"{how} {path.relative_to(run_dir)}"


def _flip(rng: random.Random, path: Path, _: list[Path]) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _overwrite(rng: random.Random, path: Path, _: list[Path]) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    place, length = rng.randrange(len(data)), rng.choice((1, 1, 16, 4096))
    data[place : place + length] = rng.randbytes(len(data[place : place + length]))
    path.write_bytes(data)


def _cut(rng: random.Random, path: Path, _: list[Path]) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: rng.randrange(size) if size else 0])


def _cut_line(rng: random.Random, path: Path, _: list[Path]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: rng.randrange(len(lines) + 1)]))


def _empty(_: random.Random, path: Path, __: list[Path]) -> None:
    path.write_bytes(b"")


def _remove(_: random.Random, path: Path, __: list[Path]) -> None:
    path.unlink()


def _append(rng: random.Random, path: Path, _: list[Path]) -> None:
    with open(path, "ab") as file:
        file.write(rng.randbytes(rng.choice((1, 10, 1000))))


def _repeat(_: random.Random, path: Path, __: list[Path]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, *lines[-1:]]))


def _swap(rng: random.Random, path: Path, files: list[Path]) -> None:
    # One of the same name in another checkpoint, if there is one, is the nastier mistake.
    alike = [other for other in files if other.name == path.name and other != path]
    other = rng.choice(alike or files)
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


SORTS: dict[str, Callable[[random.Random, Path, list[Path]], None]] = {
    "flip a bit of": _flip,
    "overwrite": _overwrite,
    "cut": _cut,
    "cut after a line of": _cut_line,
    "empty": _empty,
    "remove": _remove,
    "append to": _append,
    "repeat the last line of": _repeat,
    "swap": _swap,
}
