"""The runs axis: whoever maps it, every run gets the numbers that it has alone."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.training import runs_axis


@pytest.mark.parametrize(
    ("num_runs", "num_devices", "expected"),
    [
        (1, 1, 1),
        (1, 8, 1),
        (4, 2, 2),
        (4, 3, 2),
        (5, 2, 2),
        (6, 4, 3),
        (6, 8, 6),
        (7, 8, 7),
        (9, 8, 5),
    ],
)
def test_num_run_devices(num_runs, num_devices, expected):
    assert runs_axis.num_run_devices(num_runs, num_devices) == expected


def walk(shared, scale, key):
    """Do what a run does: draw numbers, and loop as often as is the same for all runs."""
    assert shared["length"].shape == scale.shape == key.shape == ()

    def step(i, x):
        return x * scale + jax.random.normal(jax.random.fold_in(key, i), (3,))

    end = jax.lax.fori_loop(0, shared["length"], step, jnp.zeros(3))
    return {"end": end, "mean": jnp.mean(end)}


SHARED = {"length": np.int32(4)}


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_mapping_on_one_device_equals_a_loop(monkeypatch, key, backend, num_runs):
    """What is asked for its name alone is the backend: the mapping for a GPU runs anywhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    keys, scales = jax.random.split(key, num_runs), jnp.linspace(0.1, 0.9, num_runs)
    mesh = runs_axis.run_mesh(num_runs)
    assert mesh.size == 1
    with jax.debug_key_reuse(False):
        mapped = jax.jit(runs_axis.map_runs(walk, mesh))(SHARED, scales, keys)
        alone = [jax.jit(walk)(SHARED, scales[i], keys[i]) for i in range(num_runs)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mapped, stacked)
    assert len({float(x) for x in stacked["mean"]}) == num_runs


@pytest.mark.parametrize(("backend", "traced_once_with"), [("cpu", "scan"), ("gpu", None)])
def test_a_cpu_loops_over_runs_and_an_accelerator_batches_them(
    monkeypatch, backend, traced_once_with
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    mapped = runs_axis.map_runs(lambda shared, x: jnp.sin(x) * shared, runs_axis.run_mesh(3))
    jaxpr = jax.make_jaxpr(mapped)(2.0, jnp.ones((3, 2)))
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert ("scan" in names) == (traced_once_with == "scan")


ON_SEVERAL_DEVICES = """
    import jax

    jax.config.update("jax_num_cpu_devices", 4)

    import numpy as np

    from mbpo_jax.training import runs_axis
    from tests.training.test_runs_axis import SHARED, walk

    keys, scales = jax.random.split(jax.random.key(0), 6), jax.numpy.linspace(0.1, 0.9, 6)
    mesh = runs_axis.run_mesh(6)
    assert mesh.size == 3, mesh
    sharding = runs_axis.run_sharding(mesh)
    placed = jax.device_put((scales, keys), sharding)
    mapped = jax.jit(runs_axis.map_runs(walk, mesh))(SHARED, *placed)
    assert mapped["end"].sharding.is_equivalent_to(sharding, 2), mapped["end"].sharding
    assert len(mapped["end"].sharding.device_set) == 3
    for i in range(6):
        alone = jax.jit(walk)(SHARED, scales[i], keys[i])
        for name in alone:
            np.testing.assert_allclose(mapped[name][i], alone[name], rtol=1e-5)
    print("equal")
"""


@pytest.mark.slow
def test_mapping_over_several_devices_equals_a_loop(request):
    """Six runs on four devices: three of them get two each."""
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_SEVERAL_DEVICES)],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout == "equal\n", finished.stderr
