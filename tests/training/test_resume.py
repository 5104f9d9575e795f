"""A run that is killed or terminated ends as an uninterrupted one, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbpo_jax.files import read_rows

OPTIONS = ("--preset", "debug", "--num-seeds", "2", "--checkpoint-every", "100")
HOST = ("gym/Hopper-v5", "--total-env-steps", "500")
"""An environment that is stepped on the host; its programs are compiled in each process."""
DEVICE = ("pendulum", "--total-env-steps", "500")
"""One that is part of the program, whose steps are quick."""
ROOT = Path(__file__).parents[2]


def start(run_dir: Path, trained: tuple[str, ...]) -> subprocess.Popen:
    train = (sys.executable, "-m", "mbpo_jax", "train", *trained, *OPTIONS)
    return subprocess.Popen(
        [*train, "--run-dir", str(run_dir)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == code, output
    return output


def wait_for_rows(process: subprocess.Popen, path: Path, count: int) -> None:
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def evaluations(run_dir: Path) -> list[dict]:
    rows = read_rows(run_dir / "evals.jsonl")
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]


def assert_same(run_dir: Path, uninterrupted: Path) -> None:
    assert (run_dir / "metrics.jsonl").read_bytes() == (
        uninterrupted / "metrics.jsonl"
    ).read_bytes()
    assert evaluations(run_dir) == evaluations(uninterrupted)


def wait_until_it_trains(process: subprocess.Popen) -> None:
    """By then rows that come after its checkpoint are cut off, so that those to come are new."""
    assert "training\n" in iter(process.stdout.readline, "")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_and_terminated_ends_bit_for_bit_the_same(tmp_path):
    """Two rows a call of the compiled step, eight calls in all; killed in each half of them."""
    straight, run_dir = tmp_path / "straight", tmp_path / "broken"
    finish(start(straight, HOST))

    def killed(rows: int) -> None:
        process = start(run_dir, HOST)
        wait_until_it_trains(process)
        wait_for_rows(process, run_dir / "metrics.jsonl", rows)
        time.sleep(random.uniform(0.0, 0.3))
        process.kill()
        process.communicate()

    killed(random.randint(1, 7))
    process = start(run_dir, HOST)
    wait_until_it_trains(process)
    wait_for_rows(process, run_dir / "metrics.jsonl", 9)
    process.send_signal(signal.SIGTERM)
    assert "the same command resumes" in finish(process, 75)
    killed(random.randint(11, 14))
    assert "resuming" in finish(start(run_dir, HOST))
    assert_same(run_dir, straight)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_two_at_once_one_trains_even_if_it_is_stopped_for_a_while(tmp_path):
    straight, run_dir = tmp_path / "straight", tmp_path / "run"
    finish(start(straight, DEVICE))
    both = [start(run_dir, DEVICE), start(run_dir, DEVICE)]
    while not (run_dir / ".lock").exists() or not (run_dir / ".lock").read_text():
        time.sleep(0.05)
    holder = json.loads((run_dir / ".lock").read_text())["process"]
    trains, refused = sorted(both, key=lambda process: process.pid != holder)
    wait_for_rows(trains, run_dir / "metrics.jsonl", 2)
    trains.send_signal(signal.SIGSTOP)
    assert f"another process trains in {run_dir} (process {holder}" in finish(refused, 2)
    trains.send_signal(signal.SIGCONT)
    finish(trains)
    assert_same(run_dir, straight)
