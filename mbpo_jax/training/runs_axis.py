"""How the runs axis is mapped: a property of the device, chosen in one place.

On an accelerator `vmap` fills the card. On a CPU `vmap` of small matrix products is no faster than
a loop over runs, and one host device per core, each looping over its share, is fastest
(`benchmarks/results/runs_axis.jsonl`).
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mbpo_jax.types import RUNS_AXIS, PyTree


def num_run_devices(num_runs: int, num_devices: int) -> int:
    """Return how many devices share the runs: no more than shorten the longest share."""
    longest = -(-num_runs // min(num_runs, num_devices))
    return -(-num_runs // longest)


def run_mesh(num_runs: int) -> Mesh:
    """Return a mesh with the axis `run` over the devices that share the runs."""
    devices = jax.devices()
    used = devices[: num_run_devices(num_runs, len(devices))]
    return Mesh(np.array(used), ("run",), axis_types=(AxisType.Auto,))


def padded_size(num_runs: int, mesh: Mesh) -> int:
    """Return the length of the runs axis: the last runs are repeated until all shares are equal."""
    return -(-num_runs // mesh.size) * mesh.size


def run_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the runs axis."""
    return NamedSharding(mesh, PartitionSpec("run"))


def map_local(fn: Callable[..., PyTree], shared: PyTree, mapped: tuple[PyTree, ...]) -> PyTree:
    """Apply `fn(shared, *mapped)` to every run of one device.

    One run is not mapped at all, so that nothing of it is copied.
    """
    if jax.tree.leaves(mapped)[0].shape[0] == 1:
        outputs = fn(shared, *jax.tree.map(lambda x: x[0], mapped))
        return jax.tree.map(lambda x: x[None], outputs)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: fn(shared, *arguments), mapped)
    in_axes = (None, *(0 for _ in mapped))
    return jax.vmap(fn, in_axes, axis_name=RUNS_AXIS)(shared, *mapped)


def map_runs(fn: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """Map `fn(shared, *mapped)` over the leading runs axis of every array in `mapped`.

    Args:
      fn: a pure function of one run. `shared` is the same for all runs and stays unbatched.
      mesh: from `run_mesh`.
    """

    def over_devices(shared: Any, *mapped: PyTree) -> PyTree:
        if mesh.size == 1:
            return map_local(fn, shared, mapped)
        specs = (PartitionSpec(), *(PartitionSpec("run") for _ in mapped))
        return jax.shard_map(
            lambda shared, *mapped: map_local(fn, shared, mapped),
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec("run"),
            # No run reads another one's values, so there is nothing to check.
            check_vma=False,
        )(shared, *mapped)

    return over_devices
