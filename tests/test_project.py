"""What stands around the package agrees with it: version, workflows, forms, targets, findings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import mbpo_jax

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
TARGETS = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
FINDINGS = sorted((ROOT / "findings").glob("*.sh"))


def pythons() -> list[str]:
    """Return the lines of Python that the package says it is for."""
    return re.findall(r"Python :: (3\.\d+)$", "\n".join(PYPROJECT["project"]["classifiers"]), re.M)


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.*)\] - (\d{4}-\d{2}-\d{2})$", changelog, re.MULTILINE)
    assert released[0] == (citation["version"], str(citation["date-released"]))
    assert released[0][0] == mbpo_jax.__version__


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_what_a_service_reads_fits_its_schema(schema, files):
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    options = ["--default-filetype", "yaml"]
    result = subprocess.run([*command, *options, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_test_every_python_that_the_package_is_for(path):
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    tested = [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]
    assert tested == [pythons()]


def test_an_image_is_built_from_a_python_and_from_files_that_are_there():
    (python,) = re.findall(r"^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert python in pythons()
    seen = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert all((ROOT / name).exists() for name in seen)
    project = PYPROJECT["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "mbpo_jax"} <= set(seen)


def test_targets_of_make_are_documented_and_those_that_are_named_exist():
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    documented = set(re.findall(r"^\| `make ([a-z-]+)` \|", contributing, re.MULTILINE))
    assert documented == set(TARGETS)
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony.split()) == set(TARGETS)
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci/run", *WORKFLOWS]:
        assert set(targets_named(path)) <= set(TARGETS), path.name


def targets_named(path: Path) -> list[str]:
    """Return what a file has make do: in a document, where it is set as code."""
    text = path.read_text()
    if path.suffix == ".md":
        code = re.findall(r"^```\n(.*?)^```$|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL)
        text = "\n".join(block or inline for block, inline in code)
    return re.findall(r"^(?:.*run: )?\s*make ([a-z-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_findings_say_what_was_seen_with_which_version_and_fail_if_it_changes(path):
    text = path.read_text()
    shebang, title, *_ = text.splitlines()
    assert shebang == "#!/usr/bin/env bash"
    assert re.match(r"# [\w, -]+.*: .+\.$", title)
    assert "\n# Output seen:\n#   " in text
    assert "\nset -euo pipefail\n" in text
    # What it shows depends on releases, so it brings them.
    assert re.search(r"'[\w-]+(\[\w+\])?(==|<=)[\d.]+'", text)
    assert "\nassert " in text or "\n    assert " in text or "\n[[ " in text
