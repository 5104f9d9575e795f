"""A sweep on a Ray cluster of this machine, one of whose workers is killed."""

import os
import signal
import subprocess
import sys

import pytest

from mbpo_jax.errors import ConfigError
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.sweeps import ray_tasks, store
from mbpo_jax.sweeps.sweep import sweep
from tests.sweeps.processes import (
    LONGER,
    NOTHING,
    parent_of,
    returns,
    wait_for_training,
    written,
)


def test_without_ray_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="Ray is not installed; pip install"):
        ray_tasks.train_all(NOTHING, address=None, cpus=None, gpus=0.0)


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
