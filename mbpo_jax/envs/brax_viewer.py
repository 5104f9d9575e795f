"""What Brax's own viewer of episodes reads, and its source."""

import importlib.util
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

POSE_DECIMALS = 5
"""Digits kept of positions in metres: 10 micrometres cannot be seen, and the file halves."""


def viewer_json(system: Any, states: Any, dt: float) -> str:
    """Describe a system and its motion in the JSON format of Brax's viewer.

    Args:
      system: Brax's.
      states: Brax pipeline states of one episode, stacked: every leaf is `[T, ...]`.
      dt: seconds between two states, at which the viewer plays them.
    """
    system = system.tree_replace({"opt.timestep": dt})
    from brax.io import json

    # Brax reads nothing else of a state.
    poses = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).round(POSE_DECIMALS), states.x)
    frames: list[Any] = [
        SimpleNamespace(x=jax.tree.map(operator.itemgetter(t), poses))
        for t in range(len(poses.pos))
    ]
    return json.dumps(system, frames)


def viewer_scripts() -> dict[str, str]:
    """Return the JavaScript modules of Brax's viewer, file name to source, without importing Brax.

    Raises:
      FileNotFoundError: the installed Brax has no viewer where it is expected.
    """
    spec = importlib.util.find_spec("brax")
    roots = spec.submodule_search_locations if spec else None
    scripts = {
        file.name: file.read_text(encoding="utf-8")
        for root in roots or ()
        for file in sorted(Path(root, "visualizer", "js").glob("*.js"))
    }
    if "viewer.js" not in scripts:
        raise FileNotFoundError("Brax's visualizer/js/viewer.js is missing; reinstall brax")
    return scripts
