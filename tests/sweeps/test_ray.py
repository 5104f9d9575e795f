"""A sweep on a Ray cluster of this machine, one of whose workers is killed."""

import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.sweeps import ray_tasks, store
from mbpo_jax.sweeps.process import Work
from mbpo_jax.sweeps.sweep import sweep
from mbpo_jax.training import run_directory
from mbpo_jax.training.interruption import Interruption
from tests.sweeps.processes import (
    LONGER,
    NOTHING,
    TINY,
    laid_out,
    parent_of,
    returns,
    wait_for_training,
    written,
)


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="Ray is not installed; pip install"):
        ray_tasks.train_all(NOTHING, address=None, cpus=None, gpus=0.0)


class OneWorker:
    """In the place of Ray: the first task fails, and the others end one after the other."""

    exceptions = SimpleNamespace(TaskCancelledError=KeyError, RayError=KeyError)

    def __init__(self, units: list[store.Unit], outcome: str) -> None:
        self.paths = {unit.name: unit.path for unit in units}
        self.outcome, self.cancelled = outcome, []

    def remote(self, _: str, name: str) -> str:
        return name

    def wait(self, waiting: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout > 0
        return waiting[:1], waiting[1:]

    def get(self, name: str) -> int:
        if name == next(iter(self.paths)):
            return OF_OUTCOME[self.outcome]
        outcome = "interrupted" if name in self.cancelled else "finished"
        run_directory.write_status(self.paths[name], outcome)
        return OF_OUTCOME[outcome]

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)


@pytest.mark.parametrize(
    ("outcome", "said", "error", "others"),
    [
        ("cannot write", os.strerror(errno.ENOSPC), DiskError, "interrupted"),
        ("too large", "they need 9 GiB", ConfigError, "finished"),
    ],
)
def test_a_full_disk_ends_a_sweep_and_a_small_memory_one_group(
    tmp_path, outcome, said, error, others
):
    sizes = {"grid": {"sac.hidden_sizes": [[8], [16], [24]]}}
    units = laid_out(tmp_path / "sweep", {**TINY, **sizes})
    (units[0].path / store.OUTPUT).write_text(f"{said}; here is the way out")
    ray = OneWorker(units, outcome)
    with Interruption() as interruption, pytest.raises(error, match=units[0].name):
        ray_tasks._follow(ray, ray, Work(tmp_path, units, interruption, print, print))
    assert [unit.state for unit in units[1:]] == [others, others]


@pytest.fixture
def cluster(monkeypatch):
    """Start a head without CPUs and two workers with one each, on loopback."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or other tests take all the time there is
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    found = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    yield found
    found.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_a_killed_worker_and_a_killed_node_change_no_number(cluster, tmp_path):
    path = written(tmp_path / "sweep.yaml", seeds=2, settings=LONGER)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(broken)]
    command += ["--executor", "ray", "--address", cluster.address, "--cpus-per-task", "1"]
    command += ["--runs-per-group", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        trainer, first = wait_for_training(broken, steps=250)
        os.kill(parent_of(trainer), signal.SIGKILL)  # the task; what it trains dies with it
        trainer, second = wait_for_training(broken, steps=250, but=first)
        raylet = parent_of(parent_of(trainer))
        node = next(n for n in cluster.worker_nodes if raylet in pids(n))
        cluster.remove_node(node, allow_graceful=False)
        output, _ = driver.communicate(timeout=800)
    assert driver.returncode == OF_OUTCOME["finished"], output
    assert "3 nodes; a group gets 1 CPUs" in output
    units = store.units_of(broken)
    assert {unit.state for unit in units} == {"finished"}
    earlier = {unit.name: (unit.path / "environment.json").read_text() for unit in units}
    assert all('"earlier": [\n' in earlier[name] for name in (first, second))  # begun twice
    assert sweep(path, straight, runs_per_group=1) == "finished"
    assert returns(broken) == returns(straight)


def pids(node) -> set[int]:
    """Return the processes of a node of Ray."""
    return {info.process.pid for infos in node.all_processes.values() for info in infos}
