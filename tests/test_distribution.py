"""What is released: both archives are whole, and the wheel works where there is no clone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mbpo_jax

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "mbpo-jax doctor",
    "mbpo-jax presets pendulum",
    "mbpo-jax train pendulum --preset debug --run-dir run",
    "mbpo-jax eval run --episodes 2",
    "mbpo-jax export run --format stablehlo",
    "mbpo-jax variance --problem lq --estimators lr,rp --horizons 2 --batches 20 --out gradients",
    "mbpo-jax sweep smoke --dry-run",
    "mbpo-jax sweep tiny.yaml",
    "mbpo-jax report sweeps/tiny",
)
SWEEP = """
environments: [lq]
algorithms: [sac]
seeds: 2
presets: [debug]
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """Build the source archive, and the wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True
    )
    name = f"mbpo_jax-{mbpo_jax.__version__}"
    return folder / f"{name}.tar.gz", folder / f"{name}-py3-none-any.whl"


def files_below(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}


def test_the_wheel_has_every_file_of_the_package_and_no_other(archives):
    _, wheel = archives
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    inside = {name for name in names if not name.startswith("mbpo_jax-")}
    assert inside == files_below(ROOT / "mbpo_jax")
    assert {"mbpo_jax/py.typed", "mbpo_jax/presets/sweeps/smoke.yaml"} <= inside
    assert f"mbpo_jax-{mbpo_jax.__version__}.dist-info/licenses/LICENSE" in names


def test_the_source_archive_has_what_its_tests_need(archives):
    source, _ = archives
    with tarfile.open(source) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    folders = ("mbpo_jax", "tests", "docs", "findings", ".github", "experiments", "benchmarks")
    expected = set().union(*(files_below(ROOT / folder) for folder in folders))
    assert expected <= names
    assert {"Makefile", "README.md", "CHANGELOG.md", "Dockerfile", ".ci/run"} <= names


@pytest.mark.exhaustive  # installs all that the package needs from the network
@pytest.mark.timeout(1800)
def test_the_wheel_works_where_there_is_no_clone(archives, tmp_path):
    _, wheel = archives
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    constraint = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraint, wheel], check=True)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    where = "import mbpo_jax; print(mbpo_jax.__file__, mbpo_jax.__version__)"
    found = subprocess.check_output(
        [python, "-c", where], cwd=tmp_path, env=environment, text=True
    ).split()
    assert Path(found[0]).is_relative_to(tmp_path)
    assert found[1] == mbpo_jax.__version__
    for command in COMMANDS:
        result = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    for name in (
        "run/curve.png",
        "run/policy.stablehlo",
        "gradients/report.html",
        "sweeps/tiny/report.html",
    ):
        assert (tmp_path / name).stat().st_size > 0
