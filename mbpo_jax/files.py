"""Files that survive a crash: append-only rows of JSON, and files that are replaced as a whole."""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mbpo_jax.errors import FULL, DiskError, UserError, in_units

Row = dict[str, Any]
"""One line of a row file: `env_steps`, `run`, `seed` and values by name; None where not finite."""


class LogError(UserError):
    """A log that cannot be read or continued; the message says what to do."""


@contextlib.contextmanager
def writing(path: Path, needed: int | None = None, what: str = "") -> Iterator[None]:
    """Tell what keeps something from being written as an error that the user can mend.

    Args:
      path: of what is written or made.
      needed: bytes that it needs, if that is known.
      what: what cannot be done; "cannot write" and the path if empty.

    Raises:
      DiskError: there is no room for it, it is not permitted, or the like.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(path, error, needed, what) from error


def disk_error(
    path: Path, error: OSError | int, needed: int | None = None, what: str = ""
) -> DiskError:
    """Return what `writing` raises, for an error or its code."""
    code = (error if isinstance(error, int) else error.errno) or errno.EIO
    facts = [] if needed is None else [f"needs about {in_units(needed)}"]
    if code in FULL:
        with contextlib.suppress(OSError):
            there = next(place for place in (path, *path.absolute().parents) if place.exists())
            facts.append(f"{in_units(shutil.disk_usage(there).free)} free")
    more = f" ({', '.join(facts)})" if facts else ""
    return DiskError(f"{what or f'cannot write {path}'}: {os.strerror(code)}{more}", code)


def make_directory(path: Path) -> None:
    """Make a directory, and those it lies in, if need be.

    Raises:
      DiskError: it cannot be made.
    """
    with writing(path, what=f"cannot make the directory {path}"):
        path.mkdir(parents=True, exist_ok=True)


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Append rows as lines of JSON and return these once they are on disk.

    Non-finite numbers become null, NumPy scalars and arrays plain numbers and lists. A last line
    that an earlier process could not finish is cut off first.

    Raises:
      DiskError: they cannot be written; some of them may be there.
    """
    lines = "".join(_to_json(row) + "\n" for row in rows).encode()
    with writing(path, len(lines)), open(path, "a+b") as file:
        _cut_torn_line(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    return lines


def replace_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a row file as a whole; numbers are written as `append_rows` does."""
    with replacing(path) as file:
        file.write("".join(_to_json(row) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; a last line without its line end was never finished and is left out.

    Raises:
      LogError: another line is not valid JSON; the message names the file and the line.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    return [_parse_row(path, f"line {n}", line) for n, line in enumerate(lines, start=1)]


def read_last_rows(path: Path, count: int) -> list[Row]:
    """Read no more than so many of the last rows of a file, without reading all of it.

    Raises:
      LogError: as `read_rows`.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = 2**16
        while True:
            start = max(size - length, 0)
            file.seek(start)
            lines = file.read(size - start).split(b"\n")
            # The first is whole only where the file begins, the last is not finished.
            whole = lines[:-1] if start == 0 else lines[1:-1]
            if start == 0 or len(whole) >= count:
                break
            length *= 2
    first = len(whole) - min(count, len(whole))
    return [_parse_row(path, "one of the last lines", line) for line in whole[first:]]


def _parse_row(path: Path, place: str, line: bytes) -> Row:
    try:
        return json.loads(line)
    except ValueError as error:
        raise LogError(
            f"{path}, {place}: not valid JSON ({error}); restore the file from a copy, or give the "
            "command that trains the run, which makes the row again where it can"
        ) from error


def _cut_torn_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) not in (b"\n", b""):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(to_plain(value), indent=indent, allow_nan=False)


def to_plain(value: Any) -> Any:
    """Convert arrays, mappings and sequences to what JSON knows, with None for non-finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def _open_unshared(path: Path) -> tuple[BinaryIO, Path]:
    """Open a file, or one beside it if another writer has it open; and return its path."""
    file = open(path, "wb", opener=_open_as_it_is)  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it until now has put it into its place.
        is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    except OSError:  # a file system without locks
        is_ours = True
    if is_ours:
        return file, path
    file.close()
    path = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}{path.suffix}")
    return open(path, "wb"), path


def _open_as_it_is(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and never if it fails.

    A reader sees the old content or the new one, at no time a part of either. Of several who write
    it at the same time the last one stays, where the file system has locks.

    Raises:
      DiskError: it cannot be written.
    """
    temporary, needed = path.with_name(f".{path.name}.tmp"), None
    try:
        with writing(path):
            file, temporary = _open_unshared(temporary)
        with file:
            try:
                file.truncate()  # of what a writer left that was killed
                yield file
                needed = file.tell()
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):  # which would hide what is wrong
                    temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        # The block may have trouble of its own, with another file or with none.
        ours = None if error.filename is None else Path(error.filename) in (temporary, path)
        if ours is False or error.errno is None:
            raise
        raise disk_error(path, error, needed) from error


def remove_unfinished(folder: Path) -> None:
    """Remove a folder that a library has given up, into which its threads may still be writing.

    Nothing is raised: whoever does this has something else to tell. Of a write that comes even
    later something stays.
    """
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
        if not os.path.exists(folder):  # which raises nothing where a disk fails
            return


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      UserError: it is empty, cut off or damaged otherwise.
      FileNotFoundError: it is not there.
    """
    text = path.read_text(errors="replace")
    try:
        return json.loads(text)
    except ValueError as error:
        what = f"is no JSON any more ({error})" if text.strip("\0 \n") else "is empty"
        raise UserError(f"{path} {what}; restore it from a copy") from error


def write_json_atomic(path: Path, obj: Any) -> None:
    """Replace a JSON file as a whole; non-finite numbers become null."""
    content = as_json(obj)
    with replacing(path) as file:
        file.write(content)


def as_json(obj: Any) -> bytes:
    """Return the content of a JSON file, as people read it; non-finite numbers become null."""
    return (_to_json(obj, indent=2) + "\n").encode()
