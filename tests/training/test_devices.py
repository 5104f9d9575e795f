"""What is asked of the machine: memory limits and compiler options."""

import warnings

import jax
import pytest

from mbpo_jax import compiling
from mbpo_jax.training import devices


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


def test_a_cache_that_cannot_be_written_to_is_told_once(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    kept = "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes"
    names = ["jax_compilation_cache_dir", *(f"jax_{name}" for name in kept)]
    before = {name: jax.config.values[name] for name in names}
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            devices.use_compilation_cache(tmp_path / "file" / "cache")
            assert jax.jit(lambda x: x + 1)(1) == 2
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert said == []
    assert "JAX_COMPILATION_CACHE_DIR to a folder that can be written to" in capsys.readouterr().out
