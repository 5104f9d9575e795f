"""Full disks while something trains: one message, and later the same command ends as usual."""

import contextlib
import functools
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.in_process import Ending, attempt
from benchmarks.faults.record import Fault, judged, rng_of
from benchmarks.faults.trainings import RUN, Straight, differences, lay_out, left_over

NAMES = ("tabular", "sac")
ROOM = 2**26


def make(seed: int, number: int, folder: Path, trainings: list[Straight]) -> Fault:
    """Train on disks that are too small, then on one that is large enough."""
    rng = rng_of(seed, "disks", number)
    straight = rng.choice(trainings)
    command = straight.training.command
    folder = folder / f"disks-{number}"
    folder.mkdir()
    files = [path for path in (straight.folder / RUN).rglob("*") if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    done, problems, ending = [], [], Ending(None, "")
    mounted = can_mount(folder) and rng.random() < 0.75
    with mount(folder, ROOM) if mounted else contextlib.nullcontext():
        lay_out(folder / "work")
        work = folder / "work"
        for _ in range(rng.choice((1, 1, 2))):
            size = rng.randrange(4096, sum(sizes)) if mounted else rng.randrange(max(sizes))
            with resized(folder, size) if mounted else files_below(size):
                ending = attempt(command, work)
            done.append(f"{size} bytes {'in all' if mounted else 'a file'}")
            problems = ending.problems()
            if not problems and ending.code == 2:
                problems = message_problems(ending)
            if problems:
                break
        if not problems:
            ending = attempt(command, work)
            problems = ending.problems(allowed=(0,)) or [
                *left_over(work, straight.folder),
                *differences(work, straight.folder),
            ]
    shutil.rmtree(folder)
    what = f"{straight.folder.name} on a disk of {', '.join(done)}"
    return judged(what, problems, ending.output)


def message_problems(ending: Ending) -> list[str]:
    """Return what is wrong with the message of a full disk: there is one, and it says where."""
    messages = [line for line in ending.output.splitlines() if line.startswith("mbpo-jax: ")]
    problems = [] if len(messages) == 1 else [f"{len(messages)} messages"]
    return (
        problems if all(RUN in text for text in messages) else [*problems, "it does not say where"]
    )


@functools.cache
def can_mount(folder: Path) -> bool:
    """Say whether this process may mount a disk of its own."""
    try:
        with mount(folder, ROOM):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def mount(folder: Path, size: int) -> Iterator[None]:
    """Have a disk of so many bytes at a folder."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


@contextlib.contextmanager
def resized(folder: Path, size: int) -> Iterator[None]:
    """Have a mounted disk so large meanwhile; what is there stays, and may grow a little."""
    used = shutil.disk_usage(folder).used
    _run("mount", "-o", f"remount,size={max(size, used + 2**14)}", str(folder))
    try:
        yield
    finally:
        _run("mount", "-o", f"remount,size={ROOM}", str(folder))


@contextlib.contextmanager
def files_below(size: int) -> Iterator[None]:
    """Have files of this process end before so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
