import itertools
import os

import mujoco
import numpy as np
import pytest
from PIL import Image, ImageSequence

from mbpo_jax.reports import animation

DT = 0.01
SWING = np.linspace(0, 1.5, 100)[:, None]
"""A pole that falls over in one second, as generalized positions `[T, Q]`."""
POLE = mujoco.MjModel.from_xml_string("""
<mujoco><worldbody><light pos="0 0 3"/><body>
  <joint axis="0 1 0"/><geom type="capsule" size=".05" fromto="0 0 0 0 0 .6" rgba="1 .6 0 1"/>
</body></worldbody></mujoco>
""")


@pytest.fixture(scope="module")
def gl_backend():
    backend = animation.find_gl_backend()
    if backend is None:
        pytest.skip("no OpenGL library here: install libegl1 with libgl1-mesa-dri, or libosmesa6")
    return backend


def write(path, positions=SWING):
    animation.write_animation(path, POLE, positions, DT)


def test_the_animation_moves_in_real_time_up_to_its_limit(gl_backend, tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MAX_SECONDS", 0.4)
    variables = dict(os.environ)
    path = tmp_path / "rollout.webp"
    write(path)
    with Image.open(path) as picture:
        sequence = ImageSequence.Iterator(picture)
        frames = [np.asarray(frame.convert("RGB"), np.int16) for frame in sequence]
        assert picture.info["duration"] == 40  # 25 frames per second, each of 4 states
    assert len(frames) == 10
    changes = [np.abs(after - before).max() for before, after in itertools.pairwise(frames)]
    assert min(changes) > 20
    assert list(tmp_path.iterdir()) == [path]
    assert dict(os.environ) == variables


def test_a_target_that_is_put_somewhere_is_seen_there(gl_backend, tmp_path):
    target = mujoco.MjModel.from_xml_string("""
    <mujoco><worldbody><light pos="0 0 3"/>
      <body mocap="true"><geom size=".1" rgba="1 0 0 1"/></body>
      <body><joint type="slide"/><geom size=".1"/></body></worldbody></mujoco>
    """)
    positions = np.array([[0.0, -0.2, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0]])
    path = tmp_path / "rollout.webp"
    animation.write_animation(path, target, positions, 0.1)
    with Image.open(path) as picture:
        left, right = (np.asarray(f.convert("RGB"), int) for f in ImageSequence.Iterator(picture))
    assert np.abs(left - right).max() > 20


def test_a_failure_to_draw_is_one_line_and_leaves_nothing(gl_backend, tmp_path):
    message = f"{gl_backend}: ValueError"
    with pytest.raises(animation.RenderingUnavailable, match=message) as failure:
        write(tmp_path / "rollout.webp", np.zeros((5, 3)))
    assert "\n" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_the_first_library_that_draws_is_taken(gl_backend, monkeypatch):
    monkeypatch.setattr(animation, "GL_BACKENDS", ("no-such-library", gl_backend))
    assert animation.find_gl_backend() == gl_backend


def test_without_a_library_the_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "GL_BACKENDS", ("no-such-library",))
    with pytest.raises(animation.RenderingUnavailable, match=r"libegl1.*libosmesa6") as failure:
        write(tmp_path / "rollout.webp")
    assert "\n" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []
