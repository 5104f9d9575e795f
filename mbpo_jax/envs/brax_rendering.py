"""Pictures of Brax episodes: what Brax's own viewer reads, and frames drawn by MuJoCo."""

import importlib
import importlib.util
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from mbpo_jax.envs import brax

POSE_DECIMALS = 5
"""Digits kept of positions in metres: 10 micrometres cannot be seen, and the file halves."""


def viewer_json(name: str, backend: str, states: Any, dt: float) -> str:
    """Describe a system and its motion in the JSON format of Brax's viewer.

    Args:
      name: a key of `brax.ENVIRONMENTS`.
      backend: one of its backends.
      states: Brax pipeline states of one episode, stacked: every leaf is `[T, ...]`.
      dt: seconds between two states, at which the viewer plays them.
    """
    system = brax.load(name, backend).sys.tree_replace({"opt.timestep": dt})
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


def render_frames(
    name: str, backend: str, states: Any, height: int = 240, width: int = 320
) -> np.ndarray:
    """Draw an episode with MuJoCo, seen by the environment's tracking camera if it has one.

    MuJoCo takes the OpenGL library that `MUJOCO_GL` names when it is first imported, so this needs
    a process in which that was set before Brax was loaded (see `reports.animation`).

    Args:
      name: a key of `brax.ENVIRONMENTS`.
      backend: one of its backends.
      states: anything with the generalized positions `q` `[T, Q]` of the episode.
      height: of a frame, in pixels.
      width: of a frame, in pixels.

    Returns:
      `[T, height, width, 3]` uint8, RGB.
    """
    model = brax.load(name, backend).sys.mj_model
    mujoco = importlib.import_module("mujoco")  # Compiled, without types to check.
    data = mujoco.MjData(model)
    # The name's id is -1 if there is no such camera, which is also the id of the free camera.
    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    frames = []
    with mujoco.Renderer(model, height, width) as renderer:
        # Without a graphics card these two take four fifths of the time.
        for costly in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[costly] = False
        for positions in np.asarray(states.q):
            data.qpos[:] = positions
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            frames.append(renderer.render())
    return np.stack(frames)
