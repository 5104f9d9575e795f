"""Plant faults and see which test finds each: `python -m benchmarks.planted_faults`.

Into a copy of a commit goes one fault at a time, of the kinds that learning survives and results do
not: a sign, an off-by-one, a forgotten mask, a swapped axis, a key used twice. Then the tests of
`make test` that are nearest to it run until one fails. One JSON line a fault:
  fault, file     what was planted, and where
  found_by        the test that failed first, null if none did
  processor_s     processor time until then, compiling and imports included

Exit code 1 if a fault was not found. After a change of the tests, run it on both commits:
`--revision` names another than the newest.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """One wrong line.

    Attributes:
      name: what is wrong, in words.
      file: within the package.
      right: what stands there, once.
      wrong: what is planted in its place.
      tests: which find it, within `tests/`.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = (
    Fault(
        "a sign: imagined actions cost their entropy",
        "algorithms/mve.py",
        "-temperature(state) * made.log_prob",
        "temperature(state) * made.log_prob",
        "algorithms/test_expansion.py",
    ),
    Fault(
        "an off-by-one: a rollout of the model makes a step too many",
        "models/rollout.py",
        "(i + 1 < length)",
        "(i < length)",
        "models/test_rollout.py",
    ),
    Fault(
        "an off-by-one: the ring goes on one row too late",
        "replay.py",
        "return ReplayState(data, (state.position + added) % rows, size)",
        "return ReplayState(data, (state.position + added + 1) % rows, size)",
        "test_replay.py",
    ),
    Fault(
        "a forgotten mask: an imagined episode goes on after its end",
        "models/rollout.py",
        "alive=goes_on & ~terminated",
        "alive=goes_on",
        "models/test_rollout.py",
    ),
    Fault(
        "a forgotten mask: a terminal state has a value",
        "agents/targets.py",
        "return reward + gamma * discount * next_value",
        "return reward + gamma * next_value",
        "agents/test_targets.py agents/test_sac.py",
    ),
    Fault(
        "a forgotten mask: held-out rows are trained on",
        "models/dataset.py",
        "split.order[(split.num_holdout + slots) % split.order.shape[0]]",
        "split.order[slots % split.order.shape[0]]",
        "models",
    ),
    Fault(
        "a swapped axis: uncertainty over rows, not over candidates",
        "agents/targets.py",
        "jnp.mean(jnp.square(_deviations(targets)), axis=1)",
        "jnp.mean(jnp.square(_deviations(targets)), axis=-1)[..., None]",
        "agents/test_targets.py",
    ),
    Fault(
        "a stale key: each step of a rollout draws the same noise",
        "models/rollout.py",
        "jax.random.fold_in(key, i)",
        "jax.random.fold_in(key, 0)",
        "models/test_rollout.py",
    ),
    Fault(
        "a stale key: each call of the step draws the same numbers",
        "training/loop.py",
        "start, data_metrics = start._replace(key=key), {}",
        "data_metrics = {}",
        "training/test_loop.py",
    ),
    Fault(
        "a mix-up: target critics follow at the rate of their memory",
        "agents/sac.py",
        "optax.incremental_update(critics, state.target_critics, config.tau)",
        "optax.incremental_update(critics, state.target_critics, 1.0 - config.tau)",
        "agents/test_sac.py",
    ),
    Fault(
        "a factor: predicted standard deviations are variances",
        "models/ensemble.py",
        "jnp.exp(0.5 * out.log_variance) * scaler.std",
        "jnp.exp(out.log_variance) * scaler.std",
        "models",
    ),
    Fault(
        "a factor: the baseline of an estimator counts its own row",
        "laboratory/estimators/likelihood_ratio.py",
        "* (rows / (rows - 1))",
        "",
        "laboratory",
    ),
)


def take(revision: str, folder: Path) -> None:
    """Lay out the files of a commit in a folder."""
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", folder], input=archive, check=True)


def find(fault: Fault, folder: Path) -> dict[str, object]:
    """Plant a fault in a laid-out commit, run the tests that should find it, and mend it again."""
    path = folder / "mbpo_jax" / fault.file
    text = path.read_text()
    if text.count(fault.right) != 1:
        sys.exit(
            f"{fault.file}: `{fault.right}` has to stand there once; mend FAULTS in {__file__}"
        )
    path.write_text(text.replace(fault.right, fault.wrong))
    tests = [f"tests/{name}" for name in fault.tests.split()]
    chosen = ["-m", "not slow and not exhaustive", "--exitfirst", "--quiet", *tests]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    path.write_text(text)
    if found.returncode not in (0, 1):
        sys.exit(f"{fault.name}: the tests did not run\n{found.stdout}{found.stderr}")
    names = re.findall(r"^(?:FAILED|ERROR) (\S+)", found.stdout, re.MULTILINE)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "fault": fault.name,
        "file": fault.file,
        "found_by": names[0] if names else None,
        "processor_s": round(spent, 1),
    }


def main() -> None:
    """Plant every fault, print a line for each, and say by the exit code whether all were found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--revision", default="HEAD", help="the commit (default: the newest)")
    parser.add_argument("--only", default="", help="faults whose words hold this")
    asked_for = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        take(asked_for.revision, folder)
        for fault in FAULTS:
            if asked_for.only in fault.name:
                result = find(fault, folder)
                missed += result["found_by"] is None
                print(json.dumps(result), flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
