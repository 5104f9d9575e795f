"""The campaign of faults, in miniature: it makes what it says, and sees what is wrong."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.faults import damage, kills
from benchmarks.faults.in_process import Worker, keep_programs
from benchmarks.faults.record import EQUAL, REFUSED
from benchmarks.faults.trainings import RUN, TRAININGS, Workshop, differences, lay_out, left_over

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("faults"), seed=0)


@pytest.fixture(scope="module")
def folder(workshop) -> Path:
    return workshop.straight("tabular").folder


def test_a_file_damaged_in_any_way_is_survived_or_refused(workshop, monkeypatch):
    monkeypatch.setattr(damage, "NAMES", ["tabular"])
    killed = [each for each in damage.subjects_of(workshop) if not each.is_finished]
    worker, ends = Worker(keep_programs), set()
    try:
        for number, sort in enumerate(damage.SORTS):
            fault = worker.make(damage.make, 0, number, workshop.folder, killed, [sort])
            assert not fault.problems, fault
            ends |= fault.ends.keys()
    finally:
        worker.close()
    assert ends == {EQUAL, REFUSED}


def test_a_killed_training_ends_as_if_nothing_had_been(workshop, monkeypatch):
    monkeypatch.setattr(kills, "TRAININGS", {"tabular": TRAININGS["tabular"]})
    monkeypatch.setattr(kills, "WAYS", {(kills.KILL,): 1})
    monkeypatch.setattr(kills, "MOST", 1)
    fault = kills.make(workshop, 0)
    assert not fault.problems, fault
    assert fault.ends == {EQUAL: 1}


def test_another_number_and_what_is_left_behind_are_seen(folder, tmp_path):
    copy = lay_out(tmp_path / "copy")
    run_dir = copy / RUN
    shutil.copytree(folder / RUN, run_dir)
    assert differences(copy, folder) == left_over(copy, folder) == []

    rows = (run_dir / "evals.jsonl").read_text().splitlines()
    rows[-1] = json.dumps({**json.loads(rows[-1]), "return_mean": -1.0})
    (run_dir / "evals.jsonl").write_text("\n".join(rows))
    before, last = sorted((run_dir / "checkpoints").iterdir())
    shutil.rmtree(last / "state")
    shutil.copytree(before / "state", last / "state")
    found = differences(copy, folder)
    assert "run: evals.jsonl differs" in found
    assert "run: state/key/c/0/0 differs" in found

    (run_dir / "checkpoints" / "partial-0000000120").mkdir()
    (run_dir / "status.json").rename(run_dir / ".status.json.tmp")
    assert sorted(left_over(copy, folder)) == [
        "status.json is missing",
        "temporary file run/.status.json.tmp",
        "temporary file run/checkpoints/partial-0000000120",
    ]
