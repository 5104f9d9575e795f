"""An episode as an animated WebP picture.

MuJoCo takes its OpenGL library from `MUJOCO_GL` when it is first imported, and a training process
has imported it long before. So everything that draws happens in processes of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mbpo_jax.envs import brax_rendering

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


def write_animation(path: Path, name: str, backend: str, states: Any, dt: float) -> None:
    """Write the first `MAX_SECONDS` of an episode as a WebP file that plays in real time.

    Args:
      path: the file to write; a reader never sees it half written.
      name: a key of `brax.ENVIRONMENTS`.
      backend: one of its backends.
      states: Brax pipeline states of the episode, stacked, or anything with their generalized
        positions `q` `[T, Q]`.
      dt: seconds between two states.

    Raises:
      RenderingUnavailable: MuJoCo found no OpenGL library, or could not draw with it.
    """
    gl_backend = find_gl_backend()
    if gl_backend is None:
        raise RenderingUnavailable(
            "no animation: MuJoCo found no OpenGL library; "
            "install the Debian package libegl1 (with libgl1-mesa-dri) or libosmesa6"
        )
    every = max(1, round(1 / (MAX_FRAMES_PER_SECOND * dt)))
    positions = np.asarray(states.q)[: round(MAX_SECONDS / dt) : every]
    milliseconds = round(1000 * dt * every)
    # Next to the file, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".animation-") as folder:
        np.save(Path(folder, "positions.npy"), positions, allow_pickle=False)
        arguments = ["-m", __name__, name, backend, str(milliseconds)]
        drawing = _run_python(arguments, gl_backend, folder)
        if drawing.returncode:
            reason = (drawing.stderr.strip() or f"exit code {drawing.returncode}").splitlines()[-1]
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


def _draw(name: str, backend: str, milliseconds: str) -> None:
    """Turn `positions.npy` into `animation.webp`, both in the working folder."""
    from PIL import Image

    episode = SimpleNamespace(q=np.load("positions.npy", allow_pickle=False))
    frames = brax_rendering.render_frames(name, backend, episode)
    first, *others = (Image.fromarray(frame) for frame in frames)
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
