"""The report of a sweep, from rows that are made up."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mbpo_jax.reports import statistics
from mbpo_jax.sweeps.report.page import findings, variant_table, write_page
from mbpo_jax.sweeps.report.summary import (
    MODEL_COLUMNS,
    best_variants,
    curve_of,
    normalised,
    scores_by_algorithm,
    sensitivities,
    variants_of,
)

STEPS = (100, 200, 300)


def run(identity, algorithm, seed, rate, final, environment="hopper", **changes):
    row = {
        **{"id": identity, "environment": environment, "algorithm": algorithm, "seed": seed},
        **{"sac.learning_rate": rate, "total_env_steps": 300, "env_steps": 300},
        **{"diverged": False, "final_return": final, "mean_return": final and final / 2},
        **{"wall_seconds": 30.0, "run_seconds": 3.0, "state": "finished", "trained": True},
        **{"group": f"{environment}-{algorithm}"},
        **{"run": seed, "directory": f"groups/{environment}-{algorithm}"},
        **dict.fromkeys(MODEL_COLUMNS),
    }
    return row | changes


def made_up():
    """Return rows of two environments, two algorithms, two learning rates and four seeds."""
    rng = np.random.default_rng(0)
    rows = []
    for environment in ("hopper", "<walker>"):
        for algorithm, rates in (("mbpo", (1e-4, 1e-3)), ("sac", (3e-4,))):
            for rate in rates:
                for seed in range(4):
                    final = 100.0 * (algorithm == "mbpo") + 1e5 * rate + rng.normal()
                    identity = f"{environment}{algorithm}{rate}{seed}"
                    rows.append(run(identity, algorithm, seed, rate, final, environment))
    rows[0] |= {"diverged": True}
    evaluations = [
        {"id": row["id"], "env_steps": step, "return_mean": row["final_return"] * step / 300}
        for row in rows
        for step in STEPS
    ]
    return rows, evaluations


def test_variants_are_runs_that_differ_in_seeds_alone():
    rows, _ = made_up()
    variants = variants_of([*rows, run("new", "sac", 9, 3e-4, None)])
    labels = [(v.environment, v.label, len(v.rows), v.waiting) for v in variants]
    assert labels[:3] == [
        ("hopper", "mbpo, learning_rate 0.0001", 4, 0),
        ("hopper", "mbpo, learning_rate 0.001", 4, 0),
        # The algorithm's only learning rate is no setting of the sweep.
        ("hopper", "sac", 4, 1),
    ]
    hopper = variants[1]
    expected = statistics.interquartile_mean([hopper.scores()])
    assert hopper.middle().value == expected
    assert hopper.middle().low < expected < hopper.middle().high


def test_the_best_settings_are_those_of_the_highest_middle():
    rows, _ = made_up()
    best = best_variants(variants_of(rows), "hopper")
    assert [v.label for v in best] == ["mbpo, learning_rate 0.001", "sac"]
    (found,) = sensitivities(variants_of(rows), "hopper", "sac.learning_rate")
    assert (found.algorithm, found.values) == ("mbpo", [1e-4, 1e-3])
    assert found.best[0].height() < found.best[1].height()
    assert [v.settings["sac.learning_rate"] for v in found.best] == found.values


def test_scores_go_from_the_worst_run_to_the_best():
    rows, _ = made_up()
    variants = variants_of(rows)
    scores = normalised(variants, "hopper")
    best = best_variants(variants, "hopper")[0]
    assert statistics.interquartile_mean([scores[best.algorithm]]) == pytest.approx(1.0)
    assert all(x.min() >= 0.0 for x in scores.values())
    tasks = scores_by_algorithm(variants)
    assert {name: len(own) for name, own in tasks.items()} == {"mbpo": 2, "sac": 2}


def test_a_curve_holds_the_steps_that_all_runs_have():
    rows, evaluations = made_up()
    variant = variants_of(rows)[0]
    del evaluations[2]  # of the first run, at the end
    curve = curve_of(variant, evaluations)
    assert list(curve.env_steps) == [100, 200]
    assert np.all(curve.middle.low < curve.middle.value)


def test_what_is_said_in_short():
    rows, _ = made_up()
    failed = run("x", "sac", 9, 3e-4, None, state="failed", trained=False)
    lines = findings(variants_of(rows), [*rows, failed])
    assert lines[0] == "24 of 25 runs are trained"
    assert "non-finite: 1 runs" in lines[1]
    assert "failed groups: hopper-sac" in lines[2]
    assert any(line.startswith("hopper: mbpo, learning_rate 0.001 has") for line in lines)
    two = [row for row in rows if row["seed"] < 2]
    assert "no intervals" in findings(variants_of(two), two)[-1]


def test_runs_that_are_not_trained_to_their_end_are_not_ranked_beside_those_that_are():
    rows, _ = made_up()
    early = [run(f"e{i}", "mve", i, 3e-4, 1e6, trained=False, state="running") for i in range(3)]
    variants = variants_of([*rows, *early])
    assert [v.algorithm for v in best_variants(variants, "hopper")] == ["mbpo", "sac"]
    assert [v.algorithm for v in best_variants(variants_of(early), "hopper")] == ["mve"]
    assert "highest final return so far" in findings(variants_of(early), early)[1]
    (row,) = [row for row in variant_table(variants) if row[1] == "mve"]
    assert row[2] == "0 of 3"
    assert "1 variants are not trained to their end" in findings(variants, [*rows, *early])[2]


@pytest.fixture
def page(tmp_path) -> Path:
    rows, evaluations = made_up()
    failure = {"group": "g", "time": "now", "reason": "exit code 3", "last_line": "<b>no</b>"}
    path = tmp_path / "report.html"
    versions = {"versions": {"jax": "0.10"}, "devices": ["cpu:0"], "platform": "Linux"}
    write_page(
        path, "A <sweep>", rows, evaluations, [failure], [versions, versions], "algorithms: [a]"
    )
    return path


def test_the_page_needs_no_network_and_shows_text_as_text(page):
    text = page.read_text()
    assert "<walker>" not in text
    assert "<b>no</b>" not in text
    assert "A &lt;sweep&gt;" in text
    assert "http" not in text
    assert text.count("<svg") == 2 * 2 + 2 * 2 + 1


PROBE = """
<script>
const told = [];
filter.value = 'SAC hopper'; filter.dispatchEvent(new Event('input'));
told.push(count.textContent);
filter.value = ''; filter.dispatchEvent(new Event('input'));
const at = buttons.findIndex(b => b.textContent === 'final_return');
for (let i = 0; i < 2; i++) {
  buttons[at].click();
  const numbers = [...body.rows].map(r => Number(r.cells[at].dataset.value));
  told.push(numbers.every((x, j) => j === 0 || (i ? numbers[j - 1] >= x : numbers[j - 1] <= x)));
}
told.push(JSON.parse(sessionStorage.getItem(place)).column === at);
document.title = told.join('|');
</script>
"""


@pytest.mark.slow
def test_the_page_sorts_and_filters_in_a_browser(page):
    browser = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
    if browser is None:
        pytest.skip("needs Debian's chromium-headless-shell")
    page.write_text(page.read_text().replace("</html>", PROBE + "</html>"))
    options = ["--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    found = subprocess.run(
        [browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "<title>4 of 24 runs|true|true|true</title>" in found.stdout
    assert "CONSOLE" not in found.stderr
