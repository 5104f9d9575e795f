"""What is asked of the machine: memory limits and compiler options."""

import subprocess
import sys
from pathlib import Path

import pytest

from mbpo_jax import compiling
from mbpo_jax.training import devices

ROOT = Path(__file__).parents[2]


def write_group(directory, limit, used, reclaimable):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon 1\ninactive_file {reclaimable}\n")


def test_the_limits_of_all_control_groups_count(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("1:cpu:/elsewhere\n0::/batch/job\n")
    write_group(root, "max", 900, 0)
    write_group(root / "batch", 1000, 700, 100)
    write_group(root / "batch" / "job", 500, 600, 50)
    assert devices.free_in_groups(membership, root) == [0, 400]


def test_a_system_without_control_groups_sets_no_limit(tmp_path):
    assert devices.free_in_groups(tmp_path / "nothing", tmp_path / "nowhere") == []


def test_options_are_left_out_where_the_compiler_does_not_know_them():
    assert compiling.knows_option("xla_cpu_prefer_vector_width", "512")
    assert not compiling.knows_option("xla_cpu_no_such_option", "1")


@pytest.mark.parametrize(("backend", "some"), [("cpu", True), ("gpu", False)])
def test_options_are_for_the_cpu(monkeypatch, backend, some):
    monkeypatch.setattr(compiling.jax, "default_backend", lambda: backend)
    assert bool(devices.compiler_options()) == some


def test_a_cache_that_cannot_be_written_to_is_told_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    script = (
        "from mbpo_jax.cli.common import set_up_compilation_cache\n"
        "set_up_compilation_cache()\n"
        "import jax\n"
        "assert jax.jit(lambda x: x + 1)(1) == 2"
    )
    command = [sys.executable, "-W", "default", "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    assert line.startswith("warning: compiled programs cannot be kept in ")
    assert "JAX_COMPILATION_CACHE_DIR to a folder that can be written to" in line
