"""A run that is killed at a random moment ends as an uninterrupted one, bit for bit."""

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
DEVICE = ("pendulum", "--total-env-steps", "1500")
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


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    finish(start(run_dir, HOST))
    return run_dir


@pytest.fixture(scope="module")
def on_the_device(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    finish(start(run_dir, DEVICE))
    return run_dir


def assert_same(run_dir: Path, uninterrupted: Path) -> None:
    assert (run_dir / "metrics.jsonl").read_bytes() == (
        uninterrupted / "metrics.jsonl"
    ).read_bytes()
    assert evaluations(run_dir) == evaluations(uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_ends_bit_for_bit_the_same(on_the_host, tmp_path):
    run_dir = tmp_path / "killed"
    # Two rows a call of the compiled step, eight calls in all; once in each half of them.
    for rows in (random.randint(1, 7), random.randint(8, 14)):
        process = start(run_dir, HOST)
        wait_for_rows(process, run_dir / "metrics.jsonl", rows)
        time.sleep(random.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
    finish(start(run_dir, HOST))
    assert_same(run_dir, on_the_host)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_terminated_run_saves_exits_with_75_and_resumes_bit_for_bit(on_the_host, tmp_path):
    run_dir = tmp_path / "terminated"
    process = start(run_dir, HOST)
    wait_for_rows(process, run_dir / "metrics.jsonl", 4)
    process.send_signal(signal.SIGTERM)
    assert "the same command resumes" in finish(process, 75)
    assert "resuming" in finish(start(run_dir, HOST))
    assert_same(run_dir, on_the_host)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_two_at_once_one_trains_even_if_it_is_stopped_for_a_while(on_the_device, tmp_path):
    run_dir = tmp_path / "run"
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
    assert_same(run_dir, on_the_device)
