"""The rules of the design that can be read off the source: layers, doors, sizes."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

PACKAGE = Path(__file__).parents[1] / "mbpo_jax"

# From bottom to top: a module imports from the rows below its own, and from its own room. A folder
# of one subject may have rooms in several rows; what lies in none of them is of the folder's own.
LAYERS = (
    ("errors", "exit_codes", "version"),
    ("signals",),
    ("types", "fields", "files", "yaml_files", "import_paths", "console"),
    ("config", "keys", "trees", "loops", "compiling"),
    ("config_io",),
    ("presets", "nets", "replay", "export"),
    ("envs", "models", "agents", "planning"),
    ("laboratory/problems",),
    ("laboratory/estimators",),
    ("laboratory/measures", "algorithms"),
    ("reports",),
    ("laboratory/report", "sweeps/report"),
    ("training",),
    ("laboratory", "sweeps", "run"),
    ("api",),
    ("cli", "__init__"),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

# Libraries that one file alone knows, so that they can be replaced. MuJoCo is the physics of two
# suites.
DOORS = {
    "flax": "nets/networks.py",
    "orbax": "training/checkpoint.py",
    "brax": "envs/brax*.py",
    "gymnasium": "envs/gymnasium*.py",
    "mujoco": "envs/gymnasium*.py or envs/playground.py",
    "mujoco_playground": "envs/playground.py",
    "onnx": "export/onnx_graph.py",
    "onnxruntime": "export/policy.py",
    "tensorboardX": "training/trackers/tensorboard.py",
    "trackio": "training/trackers/trackio.py",
    "wandb": "training/trackers/wandb.py",
    "yaml": "yaml_files.py",
}

# All that a file loads beside the standard library. `mbpo-jax --help` has to answer at once and
# reads the configuration, which therefore does without JAX until it is asked for it.
LOADS_ONLY = {
    "types.py": {"jax"},
    "fields.py": {"annotated_types"},
    "config/__init__.py": set(),
    "config/algorithms.py": set(),
    "import_paths.py": set(),
    "config/components.py": {"annotated_types"},
    "config/methods.py": {"annotated_types"},
    "config/reading.py": set(),
    "config/run.py": {"annotated_types"},
}

MAX_LINES = 400


def violations(package: Path) -> list[str]:
    """Return every breach of the rules in a source tree, one line each."""
    found = []
    for path in sorted(package.rglob("*.py")):
        file, source = path.relative_to(package).as_posix(), path.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=file)
        everything = set(imported(ast.walk(tree)))
        breaches = [breach(file, module) for module in everything]
        breaches += [loading_breach(file, module) for module in imported(loaded(tree))]
        breaches.append(size_breach(len(source.splitlines())))
        found += [f"{file} {text}" for text in sorted(filter(None, breaches))]
    return found


def imported(nodes) -> Iterator[str]:
    """Yield the dotted names that import statements among syntax nodes refer to."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is loaded: all but the insides of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from loaded(node)


def breach(file: str, module: str) -> str | None:
    """Return how an import breaks the layering or goes past a door, or None."""
    library, *inner = module.split(".")
    if library != "mbpo_jax":
        door = DOORS.get(library, "*")
        known = any(fnmatch(file, name) for name in door.split(" or "))
        return None if known else f"imports {library}, which only {door} may"
    layer, target = room(file.removesuffix(".py").split("/")), room(inner or ["__init__"])
    for name in (layer, target):
        if name not in RANK:
            return f"cannot import {module}: {name} has no row in LAYERS"
    if layer == target or RANK[target] < RANK[layer]:
        return None
    return f"imports {module}, which does not lie below {layer}"


def room(parts: list[str]) -> str:
    """Return the room in which a module lies: a folder within a folder, if it has a row."""
    inner = "/".join(parts[:2])
    return inner if inner in RANK else parts[0]


def loading_breach(file: str, module: str) -> str | None:
    """Return how an import burdens a file that has to load quickly, or None."""
    library = module.split(".")[0]
    allowed = LOADS_ONLY.get(file, {library}) | {"mbpo_jax"}
    return None if library in allowed | sys.stdlib_module_names else f"loads {library}"


def size_breach(lines: int) -> str | None:
    return f"has {lines} lines, more than {MAX_LINES}" if lines > MAX_LINES else None


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for file, source in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source, encoding="utf-8")
    return root


def test_the_package_keeps_the_rules():
    assert list(PACKAGE.rglob("*.py")), f"there is no source in {PACKAGE}"
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("types.py", "import typing\nimport jax"),
        ("config/run.py", "import math\nfrom annotated_types import Ge\ndef f():\n    import jax"),
        ("nets/networks.py", "import flax.linen as nn\nfrom mbpo_jax.nets import distributions"),
        ("envs/brax_html.py", "from brax.io import html"),
        ("envs/gymnasium_rows.py", "import gymnasium\nimport mujoco"),
        (
            "envs/playground.py",
            "def f():\n    import mujoco_playground\n    from mujoco import mjx",
        ),
        ("training/checkpoint.py", "import orbax.checkpoint\nfrom mbpo_jax import config, types"),
        ("models/fit.py", "from mbpo_jax.nets.networks import MLP\n" * MAX_LINES),
        ("export/onnx_graph.py", "import onnx\nfrom mbpo_jax.errors import ConfigError"),
        ("training/driver.py", "from mbpo_jax.reports.plots import curve"),
        ("cli/train.py", "def main():\n    from mbpo_jax.training import driver"),
        ("laboratory/commands.py", "from mbpo_jax.laboratory.report import page"),
        ("training/tracking.py", "from mbpo_jax.laboratory.measures import metrics"),
    ],
)
def test_a_tree_that_keeps_the_rules_passes(tmp_path, file, source):
    assert violations(write_tree(tmp_path, {file: source})) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("types.py", "import numpy", "loads numpy"),
        ("config/run.py", "import jax", "loads jax"),
        ("config/run.py", "class A:\n    import jax.numpy", "loads jax"),
        ("config/__init__.py", "import annotated_types", "loads annotated_types"),
        ("replay.py", "from mbpo_jax import agents", "not lie below replay"),
        ("fields.py", "import numpy", "loads numpy"),
        ("fields.py", "from mbpo_jax import config", "not lie below fields"),
        ("agents/sac.py", "from mbpo_jax.models.fit import fit", "not lie below agents"),
        ("planning/ilqr.py", "from mbpo_jax.models import oracle", "not lie below planning"),
        ("models/fit.py", "def f():\n    import mbpo_jax.training.loop", "not lie below models"),
        ("reports/html.py", "from mbpo_jax.training import driver", "not lie below reports"),
        ("sweeps/report/page.py", "import mbpo_jax.sweeps.store", "not lie below sweeps/report"),
        (
            "laboratory/problems/trained.py",
            "from mbpo_jax.laboratory.estimators import catalogue",
            "not lie below laboratory/problems",
        ),
        ("nets/networks.py", "import mbpo_jax", "not lie below nets"),
        ("nets/networks.py", "from mbpo_jax import attic", "attic has no row"),
        ("attic/old.py", "from mbpo_jax import types", "attic has no row"),
        ("models/ensemble.py", "from flax import linen", "only nets/networks.py may"),
        ("training/driver.py", "import orbax.checkpoint", "only training/checkpoint.py may"),
        ("envs/base.py", "import brax.envs", "only envs/brax*.py may"),
        ("reports/html.py", "def f():\n    from brax.io import html", "only envs/brax*.py may"),
        ("cli/train.py", "import mujoco", "only envs/gymnasium*.py or envs/playground.py may"),
        ("envs/own.py", "import mujoco_playground", "only envs/playground.py may"),
        ("export/policy.py", "import onnx", "only export/onnx_graph.py may"),
        ("training/logs.py", "import wandb", "only training/trackers/wandb.py may"),
        ("export/policy.py", "import mbpo_jax.training", "not lie below export"),
        ("replay.py", "\n" * (MAX_LINES + 1), f"more than {MAX_LINES}"),
    ],
)
def test_each_breach_of_a_rule_is_found(tmp_path, file, source, message):
    tree = write_tree(tmp_path, {"types.py": "import jax", file: source})
    (found,) = violations(tree)
    assert found.startswith(file)
    assert message in found


def test_a_reused_key_is_an_error_under_test(key):
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)


def test_silent_rank_promotion_is_an_error_under_test():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(2) + jnp.ones((2, 2))


@pytest.mark.brax
def test_brax_may_promote_ranks():
    assert (jnp.ones(2) + jnp.ones((2, 2))).shape == (2, 2)
