"""A sweep on a SLURM of this machine: a job that is told to stop goes on from where it was."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpo_jax.errors import ConfigError
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.sweeps import slurm_jobs, store
from mbpo_jax.sweeps.sweep import sweep
from tests.sweeps.processes import LONGER, NOTHING, returns, wait_for_training, written

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")

CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={other_port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobRequeue=1
NodeName=localhost NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def test_without_submitit_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match="submitit is not installed; pip install"):
        slurm_jobs.train_all(NOTHING, partition=None, minutes=1, cpus=1, gpus=0)


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """Start a cluster of one node with one CPU on loopback, and end what was started."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons have to be started by root")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        install = ["apt-get", "install", "-y", "-q", *PACKAGES]
        if not shutil.which("apt-get") or subprocess.run(install, check=False).returncode:
            pytest.skip(f"needs Debian's packages {' '.join(PACKAGES)}")
    root = tmp_path_factory.mktemp("slurm")
    for folder in (root, root / "munge"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # munge trusts no other
    for folder in ("state", "spool"):
        (root / folder).mkdir()
    key = root / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    ports = 20_000 + os.getpid() % 20_000
    config = root / "slurm.conf"
    config.write_text(CONFIG.format(root=root, port=ports, other_port=ports + 1))
    monkeypatch.setenv("SLURM_CONF", str(config))
    munge = root / "munge"
    paths = {"key-file": key, "socket": munge / "socket", "pid-file": munge / "pid"}
    paths |= {"log-file": munge / "log", "seed-file": munge / "seed"}
    commands = (
        ["munged", "--foreground", "--force", *(f"--{k}={v}" for k, v in paths.items())],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "localhost"],
    )
    daemons = []
    try:
        for command in commands:
            with open(root / f"{command[0]}.out", "wb") as output:
                daemons.append(subprocess.Popen(command, stdout=output, stderr=output))
            time.sleep(1.0)
        for _ in range(30):
            state = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True)
            if state.stdout.strip() == "idle":
                break
            time.sleep(1.0)
        else:
            pytest.skip(f"SLURM does not start here: {state.stdout}{state.stderr}")
        yield root
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], check=False)
        subprocess.run(["scancel", "--state=PENDING"], check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.exhaustive  # starts SLURM's daemons, and installs them where they are not
@pytest.mark.timeout(900)
def test_a_job_that_is_told_to_stop_is_queued_again_and_goes_on(cluster, tmp_path):
    # Without the signal nothing would be saved before the end.
    path = written(tmp_path / "sweep.yaml", settings={**LONGER, "checkpoint_every": 1000})
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(broken)]
    with subprocess.Popen(
        [*command, "--executor", "slurm", "--minutes", "10"], stdout=subprocess.PIPE, text=True
    ) as driver:
        wait_for_training(broken, steps=250)
        (unit,) = store.units_of(broken)
        job = re.search(r'"job": "([\d_]+)"', (unit.path / slurm_jobs.JOB).read_text()).group(1)
        # What SLURM sends ahead of the time limit, and submitit waits for.
        subprocess.run(["scancel", job, "--signal", "USR2"], check=True)
        output, _ = driver.communicate(timeout=800)
    assert driver.returncode == OF_OUTCOME["finished"], output
    assert output.count(": job ") == 1  # it was queued again under the same number
    assert unit.failures == []
    told = (unit.path / store.OUTPUT).read_text()
    saved = int(re.search(r"interrupted at (\d+) steps", told).group(1))
    assert saved >= 250
    assert f"at {saved} environment steps" in told
    assert '"earlier": [\n' in (unit.path / "environment.json").read_text()  # begun twice
    assert sweep(path, straight) == "finished"
    assert returns(broken) == returns(straight)
