"""An episode as an animated WebP picture.

MuJoCo takes its OpenGL library from `MUJOCO_GL` when it is first imported, and a training process
has imported it long before. So everything that draws happens in processes of its own.
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mbpo_jax.errors import FULL, code_named
from mbpo_jax.files import disk_error, writing

GL_BACKENDS = ("egl", "osmesa")
"""Values of `MUJOCO_GL` that draw without a screen, the faster first."""

MAX_SECONDS = 10.0
"""Length of an animation, in simulated time; what follows in the episode is left out."""

MAX_FRAMES_PER_SECOND = 25.0

_PROBE = """
import mujoco
mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).render()
"""


class RenderingUnavailable(RuntimeError):
    """No picture can be drawn on this machine; the message says what to install."""


def find_gl_backend() -> str | None:
    """Return the first of `GL_BACKENDS` with which MuJoCo draws a picture here, or None."""
    with tempfile.TemporaryDirectory() as folder:
        for backend in GL_BACKENDS:
            if _run_python(["-c", _PROBE], backend, folder).returncode == 0:
                return backend
    return None


def write_animation(path: Path, model: Any, positions: np.ndarray, dt: float) -> None:
    """Write the first `MAX_SECONDS` of an episode as a WebP file that plays in real time.

    It is seen by the model's first camera that follows a centre of mass, if it has one.

    Args:
      path: the file to write; a reader never sees it half written.
      model: `mujoco.MjModel`, the bodies.
      positions: `[T, Q]`, their generalized positions, or `[T, Q + 3 M]`, behind them those of M
        bodies that are put where they are.
      dt: seconds between two of them.

    Raises:
      DiskError: it cannot be written.
      RenderingUnavailable: MuJoCo found no OpenGL library, or could not draw with it.
    """
    gl_backend = find_gl_backend()
    if gl_backend is None:
        raise RenderingUnavailable(
            "no animation: MuJoCo found no OpenGL library; "
            "install the Debian package libegl1 (with libgl1-mesa-dri) or libosmesa6"
        )
    every = max(1, round(1 / (MAX_FRAMES_PER_SECOND * dt)))
    milliseconds = round(1000 * dt * every)
    mujoco = importlib.import_module("mujoco")  # Compiled, without types to check.
    # Next to the file, because a rename is atomic only within one file system.
    with (
        writing(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".animation-") as folder,
    ):
        mujoco.mj_saveModel(model, str(Path(folder, "model.mjb")))
        shown = positions[: round(MAX_SECONDS / dt) : every]
        np.save(Path(folder, "positions.npy"), shown, allow_pickle=False)
        drawing = _run_python(["-m", __name__, str(milliseconds)], gl_backend, folder)
        if drawing.returncode:
            reason = (drawing.stderr.strip() or f"exit code {drawing.returncode}").splitlines()[-1]
            if (code := code_named(reason)) in FULL:
                raise disk_error(path, code)
            raise RenderingUnavailable(f"no animation: MuJoCo failed with {gl_backend}: {reason}")
        os.replace(Path(folder, "animation.webp"), path)


def _run_python(arguments: list[str], gl_backend: str, folder: str) -> subprocess.CompletedProcess:
    """Run Python in a folder, which also catches MuJoCo's log file, and wait for it."""
    search_path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "MUJOCO_GL": gl_backend,
        "PYOPENGL_PLATFORM": gl_backend,
        # The device and its memory belong to the process that trains.
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, search_path)),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _frames(height: int = 240, width: int = 320) -> Iterator[np.ndarray]:
    """Yield pictures `[height, width, 3]` uint8 of `model.mjb` at `positions.npy`."""
    mujoco = importlib.import_module("mujoco")
    model = mujoco.MjModel.from_binary_path("model.mjb")
    data = mujoco.MjData(model)
    tracking = np.flatnonzero(model.cam_mode == mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
    camera = int(tracking[0]) if tracking.size else -1  # the id of the free camera
    with mujoco.Renderer(model, height, width) as renderer:
        # Without a graphics card these two take four fifths of the time.
        for costly in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[costly] = False
        for positions in np.load("positions.npy", allow_pickle=False):
            data.qpos[:], targets = np.split(positions, [model.nq])
            if targets.size:
                data.mocap_pos[:] = targets.reshape(data.mocap_pos.shape)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            yield renderer.render()


def _draw(milliseconds: str) -> None:
    """Turn `model.mjb` and `positions.npy` into `animation.webp`, all in the working folder."""
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in _frames())
    # Method 2 makes the smallest file of those that take milliseconds per frame.
    first.save(
        "animation.webp",
        save_all=True,
        append_images=others,
        duration=int(milliseconds),
        loop=0,
        quality=75,
        method=2,
    )


if __name__ == "__main__":
    _draw(*sys.argv[1:])
