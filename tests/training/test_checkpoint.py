"""Checkpoints come back exactly, or are named as corrupt and passed over."""

import itertools
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.errors import DiskError
from mbpo_jax.training import checkpoint, run_directory
from tests.disks import room_for

pytestmark = pytest.mark.smoke


class State(NamedTuple):
    key: jax.Array
    values: dict
    empty: tuple


def make_state(seed: int) -> State:
    key, draw = jax.random.split(jax.random.key(seed))
    values = {
        "weights": jax.random.normal(draw, (3, 5)),
        "count": jnp.int32(seed),
        "flag": jnp.bool_(True),
        "nan": jnp.float32(jnp.nan),
        "no rows": jnp.zeros((2, 0)),  # as in the state of mjx
    }
    return State(jnp.stack([key, key]), values, ())


def shapes(state: State) -> State:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_equal(a: State, b: State) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def largest_file(path: Path) -> Path:
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_state_and_host_come_back_exactly(tmp_path):
    state = make_state(1)
    checkpoint.save(tmp_path / "c", 10, state, {"steps": 10, "names": ["a"]})
    restored, problems = checkpoint.restore_newest(tmp_path / "c", shapes(state))
    assert restored is not None
    assert not problems
    assert restored.env_steps == 10
    assert restored.host == {"steps": 10, "names": ["a"]}
    assert_equal(restored.state, state)


def test_what_has_grown_along_its_second_axis_is_filled_up_with_zeros(tmp_path):
    state = make_state(1)
    checkpoint.save(tmp_path / "c", 10, state, {})
    like = shapes(state)
    weights = like.values["weights"].update(shape=(3, 8))
    like = like._replace(values=like.values | {"weights": weights})
    restored, _ = checkpoint.restore_newest(tmp_path / "c", like)
    assert restored.capacity == 5
    expected = jnp.pad(state.values["weights"], ((0, 0), (0, 3)))
    assert_equal(restored.state, state._replace(values=state.values | {"weights": expected}))
    assert checkpoint.restore_newest(tmp_path / "c", shapes(state))[0].capacity is None


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert checkpoint.restore_newest(tmp_path / "none", shapes(make_state(0))) == (None, [])


def test_newest_is_restored_and_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        checkpoint.save(tmp_path, step, make_state(step), {})
    assert [p.name for p in run_directory.checkpoints(tmp_path)] == ["0000000010", "0000000100"]
    restored, _ = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert_equal(restored.state, make_state(100))


@pytest.mark.parametrize(
    "damage", ["bit", "truncate", "remove", "manifest", "shape", "host", "extra"]
)
def test_corrupt_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, make_state(step), {})
    victim = largest_file(path / "state")
    if damage == "bit":
        flip_a_bit(victim)
    elif damage == "truncate":
        os.truncate(victim, victim.stat().st_size // 2)
    elif damage == "remove":
        victim.unlink()
    elif damage == "manifest":
        flip_a_bit(path / "manifest.json")
        (path / "manifest.json").write_text((path / "manifest.json").read_text()[:-20])
    elif damage == "shape":
        (path / "manifest.json").write_text("[]")
    elif damage == "host":
        (path / "host.json").write_text('{"env_steps": 3}')
    else:
        (path / "state" / "stray").write_text("x")
    # Who only reads leaves everything in its place.
    restored, problems = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert_equal(restored.state, make_state(1))
    assert path.exists()
    restored, problems = checkpoint.restore_newest(tmp_path, shapes(make_state(0)), set_aside=True)
    assert restored is not None
    assert_equal(restored.state, make_state(1))
    assert len(problems) == 1
    assert str(path) in problems[0]
    assert (tmp_path / "0000000002.corrupt").is_dir()
    # The run goes on and saves the same step again.
    checkpoint.save(tmp_path, 2, make_state(2), {})
    restored, problems = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert restored.env_steps == 2
    assert not problems


def test_no_good_checkpoint_left_is_an_error_that_names_all(tmp_path):
    for step in (1, 2):
        flip_a_bit(largest_file(checkpoint.save(tmp_path, step, make_state(step), {}) / "state"))
    # However often it is tried: what is corrupt stays where it is and is not forgotten.
    for _ in range(2):
        with pytest.raises(
            checkpoint.CheckpointError, match=r"(?s)0000000002.*0000000001.*run directory"
        ):
            checkpoint.restore_newest(tmp_path, shapes(make_state(0)), set_aside=True)


def test_unfinished_checkpoint_is_ignored_and_cleared_away(tmp_path):
    finished = checkpoint.save(tmp_path, 1, make_state(1), {})
    shutil.copytree(finished, tmp_path / "partial-0000000002")
    restored, problems = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert restored.env_steps == 1
    assert not problems
    checkpoint.save(tmp_path, 3, make_state(3), {})
    assert not list(tmp_path.glob("partial-*"))


@pytest.mark.parametrize(
    ("place", "turn", "left"),
    [("_first", 0, 1), ("_write_synced", 0, 1), ("_write_synced", 1, 1), ("_sync_directory", 0, 2)],
)
def test_who_dies_while_saving_leaves_a_checkpoint_that_is_whole(
    tmp_path, monkeypatch, place, turn, left
):
    """Before anything is written, before `host.json`, the manifest, and after the renaming."""
    checkpoint.save(tmp_path, 1, make_state(1), {})
    before, turns = getattr(checkpoint, place), itertools.count()

    def die(*arguments):
        if next(turns) == turn:
            raise SystemExit  # which nothing in its way catches: the disk is as after `os._exit`
        return before(*arguments)

    monkeypatch.setattr(checkpoint, place, die)
    with pytest.raises(SystemExit):
        checkpoint.save(tmp_path, 2, make_state(2), {})
    monkeypatch.undo()
    restored, problems = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert_equal(restored.state, make_state(left))
    assert not problems
    checkpoint.save(tmp_path, 2, make_state(2), {})
    restored, _ = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert_equal(restored.state, make_state(2))


@pytest.mark.parametrize("size", [0, 150, 600])
def test_without_room_the_earlier_checkpoint_stays_and_one_error_tells(tmp_path, caplog, size):
    """Wherever it runs out, and whatever Orbax's threads would say of it."""
    checkpoint.save(tmp_path, 1, make_state(1), {})
    with room_for(size), pytest.raises(DiskError, match=r"too large \(needs about .*same command"):
        checkpoint.save(tmp_path, 2, make_state(2), {})
    assert caplog.text == ""
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]
    restored, _ = checkpoint.restore_newest(tmp_path, shapes(make_state(0)))
    assert restored is not None
    assert_equal(restored.state, make_state(1))
    checkpoint.save(tmp_path, 2, make_state(2), {})


def test_a_checkpoint_whose_host_counts_on_what_is_lost_is_passed_over(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step), {"rows": step})

    def restore(rows: int, set_aside: bool) -> tuple:
        return checkpoint.restore_newest(
            tmp_path,
            shapes(make_state(0)),
            set_aside=set_aside,
            lost=lambda host: f"row {rows + 1} is lost" if host["rows"] > rows else None,
        )

    with pytest.raises(checkpoint.CheckpointError, match=r"row 1 is lost.*restore.*--init-from"):
        restore(0, set_aside=True)
    restored, problems = restore(1, set_aside=True)
    assert restored.env_steps == 1
    assert problems == ["row 2 is lost; what came after the checkpoint before that is made again"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000001", "0000000002.corrupt"]


def test_what_the_host_noted_is_told_without_the_arrays(tmp_path):
    assert checkpoint.newest_host(tmp_path) is None
    path = checkpoint.save(tmp_path, 250, make_state(0), {"env_steps": 250})
    flip_a_bit(largest_file(path))
    assert checkpoint.newest_host(tmp_path) == {"env_steps": 250}
    flip_a_bit(path / "host.json")
    assert checkpoint.newest_host(tmp_path) is None


class Before(NamedTuple):
    weights: jax.Array


class After(NamedTuple):
    added: tuple[()]
    weights: jax.Array


def test_a_state_may_have_got_fields_that_are_empty_unless_a_switch_is_set(tmp_path):
    """Their places do not matter, nor does the depth at which they are."""
    weights = jnp.arange(6.0).reshape(2, 3)
    checkpoint.save(tmp_path, 10, {"agent": (Before(weights), Before(2 * weights))}, {})
    new = {"agent": (After((), weights), After((), 2 * weights))}
    restored, _ = checkpoint.restore_newest(tmp_path, shapes(new))
    assert restored is not None
    assert jax.tree.structure(restored.state) == jax.tree.structure(new)
    jax.tree.map(np.testing.assert_array_equal, restored.state, new)
