"""Files that survive a crash: append-only rows of JSON, and files that are replaced as a whole."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mbpo_jax.errors import UserError

Row = dict[str, Any]
"""One line of a row file: `env_steps`, `run`, `seed` and values by name; None where not finite."""


class LogError(UserError):
    """A log that cannot be read or continued; the message says what to do."""


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows as lines of JSON and return once they are on disk.

    Non-finite numbers become null, NumPy scalars and arrays plain numbers and lists. A last line
    that an earlier process could not finish is cut off first.
    """
    text = "".join(_to_json(row) + "\n" for row in rows)
    with open(path, "a+b") as file:
        _cut_torn_line(file)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


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
            f"{path}, {place}: not valid JSON ({error}); restore the file from a copy"
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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and never if it fails.

    A reader sees the old content or the new one, at no time a part of either.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json_atomic(path: Path, obj: Any) -> None:
    """Replace a JSON file as a whole; non-finite numbers become null."""
    text = _to_json(obj, indent=2) + "\n"
    with replacing(path) as file:
        file.write(text.encode())
