"""What runs begin with: a checkpoint of their own, or what others have learned."""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mbpo_jax import replay
from mbpo_jax.errors import ConfigError
from mbpo_jax.training import checkpoint, logs, run_directory
from mbpo_jax.training.layout import Setup
from mbpo_jax.training.runs_axis import run_sharding
from mbpo_jax.training.state import Learned, learned
from mbpo_jax.types import PyTree

BEST = "best"
"""Beside the state in a checkpoint: what each run had learned when it was evaluated best."""


class Beginning(NamedTuple):
    """What new runs begin with.

    Attributes:
      run: directory it comes from.
      env_steps: when it was learned.
      learned: `[R, ...]`, by as many runs, or `[1, ...]`.
    """

    run: str
    env_steps: int
    learned: Learned


def has_its_rows(run_dir: Path) -> bool:
    """Return whether a run's log is as at its newest checkpoint, without a row less or more."""
    host = checkpoint.newest_host(run_dir / run_directory.CHECKPOINTS)
    if host is None or "log" not in host:
        return True
    return _lost(run_dir, host) is None and not logs.goes_on_after(run_dir, host["log"])


def _lost(run_dir: Path, host: Mapping[str, Any]) -> str | None:
    return logs.damage(run_dir, host.get("log", logs.BEGINNING))


def restore_runs(
    run_dir: Path, setup: Setup, *, goes_on: bool = False
) -> tuple[checkpoint.Restored | None, list[str]]:
    """Restore the newest good checkpoint of a run directory, as `checkpoint.restore_newest` does.

    If the run `goes_on` in this process, its log has to be there as it was at that checkpoint, and
    others are set aside.

    Aside it has `BEST`, unless it comes from before that was kept or from before any evaluation.
    Where the runs are to be longer than they were, their replay buffers have grown.
    """
    restored, problems = checkpoint.restore_newest(
        run_dir / run_directory.CHECKPOINTS,
        setup.shapes,
        len(setup.group.runs),
        aside={BEST: learned(setup.shapes)},
        set_aside=goes_on,
        lost=functools.partial(_lost, run_dir) if goes_on else lambda _: None,
    )
    if restored and restored.capacity:
        rows, state = restored.capacity, restored.state
        buffer = jax.vmap(lambda buffer: replay.filled_up(buffer, rows))(state.replay)
        buffer = jax.device_put(buffer, run_sharding(setup.mesh))
        restored = restored._replace(state=state._replace(replay=buffer))
    return restored, problems


def spread(source: Learned, setup: Setup) -> dict[str, PyTree]:
    """Lay out what other runs have learned as a beginning of these ones.

    Args:
      source: of as many runs `[R, ...]`, or of one, from which all begin. What has no model leaves
        the model to begin anew.
      setup: of the runs that begin.

    Returns:
      Fields of `TrainState`.

    Raises:
      ConfigError: it has other shapes or another number of runs.
    """
    wanted, num_runs = learned(setup.shapes), len(setup.group.runs)
    places = {"agent": source.agent, "model": source.model}
    if not jax.tree.leaves(source.model) or not jax.tree.leaves(wanted.model):
        places.pop("model")
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(places)}
    if rows - {1, num_runs}:
        raise ConfigError(
            f"init_from: it holds {max(rows)} runs, which cannot begin {num_runs}; use as many, or "
            "a run directory of one"
        )

    def check(name: str, found: PyTree, like: PyTree) -> None:
        shapes = [
            [(jax.tree_util.keystr(path), leaf.shape[1:]) for path, leaf in leaves]
            for leaves in map(jax.tree_util.tree_leaves_with_path, (found, like))
        ]
        differing = [pair for pair in itertools.zip_longest(*shapes) if pair[0] != pair[1]]
        if differing:
            was, needed = (
                f"{name}{pair[0]} {pair[1]}" if pair else "none" for pair in differing[0]
            )
            raise ConfigError(
                f"init_from: its {name} has other shapes ({was} where {needed} is needed); use a "
                "run with the same algorithm family, sizes of networks and environment"
            )

    def laid(found: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        row = np.minimum(np.arange(like.shape[0]), found.shape[0] - 1)
        return jax.device_put(jax.device_get(found)[row], like.sharding)

    for name, tree in places.items():
        check(name, tree, getattr(wanted, name))
    return {name: jax.tree.map(laid, tree, getattr(wanted, name)) for name, tree in places.items()}
