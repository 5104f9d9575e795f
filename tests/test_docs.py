"""What the documents show works: code is executed as it stands there, commands are understood."""

import dataclasses
import importlib
import re
import shlex
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import pytest

import mbpo_jax
from mbpo_jax import cli, presets
from mbpo_jax.cli.train import Train
from mbpo_jax.config import ALGORITHMS
from mbpo_jax.training import plan
from mbpo_jax.types import Transition

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[tuple[str, str]]:
    """Return the blocks of a language in a document: the file each is part of, and its text."""
    return [
        (file, text) for kind, file, text in BLOCK.findall(path.read_text()) if kind == language
    ]


def commands() -> list[tuple[str, str]]:
    """Return every command line that the documents show."""
    found = []
    for path in DOCUMENTS:
        for _, text in blocks(path, ""):
            lines = (line.partition("  #")[0].strip() for line in text.splitlines())
            found += [(path.name, line) for line in lines if line.startswith("mbpo-jax ")]
    return found


def write_mine() -> list[str]:
    """Write `mine.py`, which a document builds part by part, and return its parts."""
    parts = [text for _, text in blocks(ROOT / "docs/extending.md", "python")]
    Path("mine.py").write_text("\n\n".join(parts))
    return parts


@pytest.fixture
def small(undrawn, monkeypatch):
    """Make `pendulum` small enough for a test, and draw nothing."""
    changes = presets.PRESETS["debug"].changes
    known = presets.PRESETS["pendulum"]
    shrunk = known._replace(changes=_over(known.changes, changes))
    monkeypatch.setitem(presets.PRESETS, "pendulum", shrunk)
    monkeypatch.setitem(presets.ENVIRONMENT_PRESETS, "pendulum", shrunk)
    mpl.use("agg")
    precise = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", precise)


def _over(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for name, value in changes.items():
        known = merged.get(name)
        merged[name] = _over(known, value) if isinstance(known, dict) else value
    return merged


# The tour is executed as a notebook (tests/test_site.py).
WITH_CODE = [path for path in DOCUMENTS if blocks(path, "python") and path.name != "tour.md"]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.name)
def test_code_runs_as_it_stands(path, small, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    shutil.copytree(ROOT / "experiments/results/pendulums", "sweeps/mine")
    write_mine()
    names: dict = {"__name__": "document"}
    for file, text in blocks(path, "python"):
        if not file:
            exec(compile(text, path.name, "exec"), names)


@pytest.mark.parametrize(("document", "line"), commands())
def test_commands_are_understood(document, line, monkeypatch, capsys):
    """All of a command is parsed and checked; of a training only the training is left out."""
    monkeypatch.setattr(plan, "dry_run", lambda *_: None)
    monkeypatch.setattr(cli.train, "set_up_compilation_cache", lambda enabled: None)
    Path("mine.yaml").write_text("sac: {tau: 0.01}\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    write_mine()

    def carry_out(command, base, argv):
        if isinstance(command, Train):
            return dataclasses.replace(command, dry_run=True, init_from=None).run(base, argv)
        return 0

    monkeypatch.setattr(cli, "_carry_out", carry_out)
    code = cli.main(shlex.split(line)[1:])
    assert (code, capsys.readouterr().err) == (0, ""), f"{document}: {line}"


@pytest.mark.slow
def test_every_extension_of_the_documents_is_short_and_they_train_together(small, monkeypatch):
    for text in write_mine():
        lines = [line for line in text.splitlines() if line.strip()]
        assert len(lines) <= 30, text.splitlines()[0]
    monkeypatch.syspath_prepend(str(Path.cwd()))
    names = ("mine:small", "debug")
    run = mbpo_jax.train("mine:make_spring", presets=names, algorithm="mine:make_careful_mbpo")
    assert run.state == "finished"
    assert run.path == Path("runs/mine-make_spring-mine-make_careful_mbpo-mine-small-debug-0")
    assert {"rollout/kept", "model/holdout_r2"} <= set(run.metrics.columns)
    assert mbpo_jax.load(run.path).policy()([0.0, 0.0]).shape == (1,)
    gentle = mbpo_jax.train("mine:make_spring", presets=names, algorithm="mine:make_gentle_sac")
    assert gentle.metrics["sac/policy_loss"].notna().all()
    assert paid_for_actions(gentle.config, monkeypatch) > 0.0


def paid_for_actions(config, monkeypatch) -> float:
    """Return what the price adds to the policy's loss, of the same numbers."""
    mine, env = importlib.import_module("mine"), mbpo_jax.make_env(config.env)
    rows = jnp.ones(8)
    states, actions = jnp.ones((8, env.spec.observation_size)), jnp.ones((8, env.spec.action_size))
    batch = Transition(states, actions, rows, rows, states)

    def loss() -> float:
        agent = mine.make_gentle_sac(env, config).agent
        init_key, key = jax.random.split(jax.random.key(0))
        _, metrics = jax.jit(agent.update)(key, agent.init(init_key), (), batch)
        return float(metrics["sac/policy_loss"])

    with_price = loss()
    monkeypatch.setattr(mine, "PRICE", 0.0)
    return with_price - loss()


def test_every_algorithm_is_in_the_table_with_its_source():
    rows = (ROOT / "docs/algorithms.md").read_text()
    for name, record in ALGORITHMS.items():
        (row,) = re.findall(rf"^\| \[`{name}`\].*$", rows, re.MULTILINE)
        assert record.source in row, row


def test_the_readme_is_short():
    before, _, _ = (ROOT / "README.md").read_text().partition("## Licence")
    assert before.count("\n") <= 100


def test_every_file_that_the_documents_point_to_is_there():
    for path in [*DOCUMENTS, ROOT / "experiments/README.md", ROOT / "benchmarks/README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
