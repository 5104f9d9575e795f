"""Checkpoints that are whole or not there at all; the only file that knows Orbax.

Orbax keeps no digest of array data, so a flipped bit would be restored in silence. Each checkpoint
therefore carries a manifest with the SHA-256 of every file, written last, before one rename makes
the checkpoint visible. One that fails the check is set aside under another name, and the one before
it is used.
"""

import fnmatch
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from mbpo_jax.errors import UserError, code_named
from mbpo_jax.files import disk_error, make_directory, remove_unfinished, writing
from mbpo_jax.training.run_directory import checkpoints
from mbpo_jax.types import PyTree

KEEP = 2
"""Checkpoints kept, so that there is a good one before a corrupt one."""

_MANIFEST = "manifest.json"
_HOST = "host.json"
_STATE = "state"


_SAVING = threading.Lock()
"""Orbax's own temporary files of two threads get into each other's way."""

# Orbax raises what goes wrong in its threads, and logs it as well, each time with a traceback.
logging.getLogger("absl").addFilter(lambda record: "_SignalingThread" not in str(record.msg))


def _leave_out_late_writes(
    unraisable: Any, told: Callable[[Any], Any] = sys.unraisablehook
) -> None:
    """Say nothing of writes that end once Orbax has given up, and find its event loop closed.

    TensorStore hands each of them to Python, from its own threads, as an error that nobody can take
    and that comes from no object; those of others come from one.
    """
    error = unraisable.exc_value
    is_late = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    if not is_late or unraisable.object is not None:
        told(unraisable)


sys.unraisablehook = _leave_out_late_writes


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read; the message says what to do."""


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      state: arrays, as they were saved.
      host: what the host noted beside them.
      env_steps: when it was saved.
      capacity: second axis of those arrays that were shorter then and were filled up, with zeros
        or any keys; None if there were none.
      aside: further trees that were asked for, by name; those that it held.
    """

    state: PyTree
    host: dict[str, Any]
    env_steps: int
    capacity: int | None = None
    aside: Mapping[str, PyTree] = MappingProxyType({})


def save(
    directory: Path,
    env_steps: int,
    state: PyTree,
    host: Mapping[str, Any],
    num_runs: int | None = None,
    aside: Mapping[str, PyTree] = MappingProxyType({}),
) -> Path:
    """Write a checkpoint and return its path once it is on disk; then drop the oldest.

    Args:
      directory: of all checkpoints of a run.
      env_steps: names the checkpoint; nothing is done if there is one of this name with the same
        `host`, and one with another is replaced.
      state: arrays; of what `num_runs` does not count, as it depends on the number of devices,
        nothing is kept.
      host: JSON object with what is to be remembered beside the arrays.
      num_runs: length of their first axis that counts; all of it if None.
      aside: further trees of arrays by name, which a reader may ask for or not.

    Raises:
      DiskError: there is no room for it, or it is not permitted. Earlier checkpoints are as they
        were.
      CheckpointError: Orbax cannot write it.
    """
    final = directory / f"{env_steps:010d}"
    remembered = json.dumps(dict(host), indent=2)
    if final.exists() and _is_told(final / _HOST, remembered):
        return final
    partial = directory / f"partial-{env_steps:010d}"
    make_directory(directory)
    try:
        _discard_partial(directory)
        partial.mkdir()
        for name, tree in {_STATE: state, **aside}.items():
            if not jax.tree.leaves(tree):  # of an algorithm that learns nothing
                continue
            with _SAVING:
                ocp.save(str(partial.absolute() / name), _without_empty(_first(num_runs, tree)))
        _write_synced(partial / _HOST, remembered)
        _write_synced(partial / _MANIFEST, json.dumps({"sha256": _digests(partial)}, indent=2))
        if final.exists():  # of an agent that was catching up, whose steps do not count on
            os.rename(final, directory / f"partial-{final.name}-replaced")
        os.rename(partial, final)
        _sync_directory(directory)
        _discard_partial(directory)
    except (OSError, ValueError) as error:  # the second is what Orbax makes of the first
        remove_unfinished(partial)
        problem = f"cannot save a checkpoint in {directory}"
        code = error.errno if isinstance(error, OSError) else code_named(str(error))
        if code is None:
            raise CheckpointError(
                f"{problem}: {error}. Earlier checkpoints are intact; see to it, and give the same "
                "command again"
            ) from error
        earlier = [_bytes_on_disk(path) for path in checkpoints(directory)]
        arrays = jax.tree.leaves(_first(num_runs, [state, *aside.values()]))
        size = max(sum(x.nbytes for x in arrays), *earlier, 0)
        raise disk_error(directory, code, size, problem) from error
    with writing(directory):
        for old in checkpoints(directory)[:-KEEP]:
            shutil.rmtree(old)
    return final


def _bytes_on_disk(path: Path) -> int:
    return sum(512 * found.stat().st_blocks for found in path.rglob("*"))


def _is_told(file: Path, text: str) -> bool:
    """Return whether a file has this text; a damaged checkpoint may have none."""
    return file.is_file() and file.read_bytes() == text.encode()


def restore_newest(
    directory: Path,
    like: PyTree,
    num_runs: int | None = None,
    *,
    aside: Mapping[str, PyTree] = MappingProxyType({}),
    set_aside: bool = False,
    lost: Callable[[dict[str, Any]], str | None] = lambda _: None,
) -> tuple[Restored | None, list[str]]:
    """Restore the newest checkpoint that is whole, and has what it goes on from.

    Args:
      directory: of all checkpoints of a run.
      like: `jax.ShapeDtypeStruct`s with shardings, in the shape of the state. Arrays may have been
        shorter along their second axis; they are filled up.
      num_runs: as it was saved with; its last row is repeated to the length of `like`.
      aside: further trees by name, in shapes as `like`; what a checkpoint has none of is left out.
      set_aside: rename checkpoints that are passed over for an older one, so that training can
        save them again. Only for the process that trains: another one may be reading.
      lost: says what is lost, outside of the checkpoint, of what its `host` counts on; None if all
        is there.

    Returns:
      What was restored, None if there is no checkpoint, and a message for each one passed over.

    Raises:
      CheckpointError: there are checkpoints, and none that can be gone on from.
    """
    corrupt: list[Path] = []
    problems: list[str] = []
    losses: list[str] = []
    for path in reversed(checkpoints(directory)):
        reason = find_damage(path)
        if reason is None and (loss := lost(_host(path))):
            corrupt.append(path)
            losses.append(loss)
            problems.append(f"{loss}; what came after the checkpoint before that is made again")
            continue
        if reason is None:
            restored = _load(path, like, num_runs, aside)
            for other in corrupt if set_aside else ():
                new_name = other.with_name(f"{other.name}.corrupt")
                shutil.rmtree(new_name, ignore_errors=True)
                other.rename(new_name)
            return restored, problems
        corrupt.append(path)
        problems.append(f"checkpoint {path} is corrupt ({reason}) and is passed over")
    if losses:
        # Without the rows, the run could go on as well. But they are measurements, others are
        # compared with them row by row, and a hole would count in means that nobody doubts.
        raise CheckpointError(
            f"{losses[-1]}, and no checkpoint from before that is left, so what was there cannot "
            "be made again; restore the file from a copy, or train in a new run directory with "
            "--run-dir, which can begin with what this one has learned (--init-from)"
        )
    if corrupt:
        raise CheckpointError(
            *problems, "no good checkpoint is left; train in a new run directory with --run-dir"
        )
    return None, problems


def find_damage(path: Path, pattern: str = "*") -> str | None:
    """Return what is wrong with a checkpoint's files, or None if they are as they were written.

    Args:
      path: of the checkpoint.
      pattern: of the names of the files in it that are looked at.
    """
    try:
        expected = json.loads((path / _MANIFEST).read_text())["sha256"]
        expected = {str(name): str(digest) for name, digest in expected.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {error}"
    actual = _digests(path, pattern)
    wanted = {name for name in expected if fnmatch.fnmatch(name, pattern)}
    for name in sorted(wanted | actual.keys()):
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != expected.get(name):
            return f"{name} was changed"
    return None


def _host(path: Path) -> dict[str, Any]:
    return json.loads((path / _HOST).read_text())


def newest_host(directory: Path) -> dict[str, Any] | None:
    """Return what the host noted in the newest checkpoint; None if that is not there or whole.

    The arrays beside it, which may be large, are not looked at.
    """
    found = checkpoints(directory)
    return _host(found[-1]) if found and find_damage(found[-1], _HOST) is None else None


def _load(path: Path, like: PyTree, num_runs: int | None, aside: Mapping[str, PyTree]) -> Restored:
    host = _host(path)
    state, capacity = _load_tree(path / _STATE, like, num_runs)
    found = {
        name: _load_tree(path / name, tree, num_runs)[0]
        for name, tree in aside.items()
        if (path / name).exists() or not jax.tree.leaves(tree)
    }
    return Restored(state, host, int(path.name), capacity, found)


def _load_tree(path: Path, like: PyTree, num_runs: int | None) -> tuple[PyTree, int | None]:
    """Return a tree of arrays, and the second axis of those that were shorter and filled up."""
    if not jax.tree.leaves(like):
        return like, None
    described = ocp.metadata(str(path.absolute())).metadata
    if described is None:  # whatever went wrong, it is not raised
        raise CheckpointError(
            f"{path}: what it holds cannot be read just now; give the same command again"
        )
    shapes = {
        _name(place): leaf.shape
        for place, leaf in jax.tree_util.tree_leaves_with_path(described)
        if hasattr(leaf, "shape")
    }
    capacities: set[int] = set()

    def as_saved(place: tuple, target: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = target.shape
        saved = shapes.get(_name(place), shape)
        if jnp.issubdtype(target.dtype, jax.dtypes.prng_key):
            saved = saved[:-1]  # a key is words there
        if len(saved) == len(shape) > 1 and saved[1] < shape[1]:
            capacities.add(saved[1])
            shape = (shape[0], saved[1], *shape[2:])
        shape = shape if num_runs is None else (num_runs, *shape[1:])
        if shape == target.shape:
            return target
        # The devices it was saved from need not be here.
        anywhere = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.ShapeDtypeStruct(shape, target.dtype, sharding=anywhere)

    saved_like = jax.tree_util.tree_map_with_path(as_saved, like)
    with warnings.catch_warnings():
        # Orbax cannot hand a sharding to typed keys, and says so each time.
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        wanted = _as_on_disk(_without_empty(saved_like), described)
        found = ocp.load(str(path.absolute()), wanted)
    saved = {_name(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(found)}

    def restore(place: tuple, target: jax.ShapeDtypeStruct) -> jax.Array:
        if not target.size:
            return jax.device_put(np.zeros(target.shape, target.dtype), target.sharding)
        value = saved[_name(place)]
        if value.shape[:1] != target.shape[:1]:
            value = value[np.minimum(np.arange(target.shape[0]), len(value) - 1)]
        if value.shape != target.shape:
            missing = target.shape[1] - value.shape[1]
            more = jnp.broadcast_to(value[:, :1], (len(value), missing, *value.shape[2:]))
            if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                more = jnp.zeros_like(more)
            value = jnp.concatenate([value, more], axis=1)
        return jax.device_put(value, target.sharding)

    restored = jax.tree_util.tree_map_with_path(restore, like)
    return restored, min(capacities, default=None)


def _as_on_disk(tree: PyTree, described: PyTree) -> PyTree:
    """Turn named tuples into dictionaries, without empty fields that a checkpoint has not.

    A field that is empty unless a switch is set, such as a scaler, is missing in checkpoints that
    were written before there was such a switch.
    """
    if isinstance(tree, dict) or hasattr(tree, "_fields"):
        fields = tree if isinstance(tree, dict) else tree._asdict()
        there = described if isinstance(described, dict) else {}
        return {
            name: _as_on_disk(value, there.get(name))
            for name, value in fields.items()
            if name in there or jax.tree.leaves(value)
        }
    if isinstance(tree, tuple | list):
        there = described if isinstance(described, tuple | list) else [None] * len(tree)
        return type(tree)(map(_as_on_disk, tree, there))
    return tree


def _name(place: tuple) -> str:
    """Name a leaf as it is named on disk, where a named tuple is a dictionary."""
    return jax.tree_util.keystr(place, simple=True, separator="/")


def _first(num_runs: int | None, tree: PyTree) -> PyTree:
    """Return the first rows of all arrays, and an array itself where that is all of it."""
    if num_runs is None:
        return tree
    return jax.tree.map(lambda x: x if x.shape[0] == num_runs else x[:num_runs], tree)


def _without_empty(tree: PyTree) -> PyTree:
    """Leave out arrays without elements (mjx has some), which Orbax refuses to write."""
    return jax.tree.map(lambda x: x if x.size else None, tree)


def _digests(path: Path, pattern: str = "*") -> dict[str, str]:
    files = (p for p in sorted(path.rglob(pattern)) if p.is_file() and p.name != _MANIFEST)
    return {str(p.relative_to(path)): _sha256(p) for p in files}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _discard_partial(directory: Path) -> None:
    for leftover in directory.glob("partial-*"):
        shutil.rmtree(leftover)


def _write_synced(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
