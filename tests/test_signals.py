"""What signals do to the program: real ones, sent to real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbpo_jax.signals import ends_with_us
from mbpo_jax.training.interruption import Interruption
from tests.sweeps.processes import wait_for

AGAIN = ", and the same command can be given again"
PROMPT = 60.0
"""Seconds, of a machine that has much else to do; what is ended here would take far longer."""

WHEN_LOADED = """
import os, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder)
from mbpo_jax.__main__ import main
sys.argv = ["mbpo-jax", "train", "pendulum", "--preset", "debug", "--run-dir", "run"]
sys.exit(main())
"""

IN_XLA = """
import contextlib, subprocess, time
from mbpo_jax import signals
signals.answer()
import jax, jax.numpy as jnp
from mbpo_jax.training.interruption import Interruption
def wait(x):
    print(child.pid, flush=True)
    time.sleep(600)
    return x
child = subprocess.Popen(["sleep", "600"])
shape = jax.ShapeDtypeStruct((), jnp.float32)
training = Interruption() if {trains} else contextlib.nullcontext()
with training, signals.ends_with_us(child.kill):
    jax.jit(lambda x: jax.pure_callback(wait, shape, x))(1.0).block_until_ready()
"""


IN_AN_EVENT_LOOP = """
import asyncio, os, signal
from mbpo_jax import signals
signals.answer()
async def read():
    try:
        signal.raise_signal({number})
    except BaseException:
        print("as if nothing had been")
asyncio.new_event_loop().run_until_complete(read())
"""


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for a process, and return its exit code and what it said of its end."""
    began = time.monotonic()
    _, said = process.communicate(timeout=4 * PROMPT)
    assert time.monotonic() - began < PROMPT
    return process.returncode, said


def children_of(process: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_gone(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    return True


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [
        ("mbpo_jax.cli", signal.SIGTERM, 75),
        ("tyro", signal.SIGINT, 130),
        ("jax", signal.SIGUSR1, 75),
    ],
)
def test_while_the_program_loads_nothing_was_started(module, number, code):
    code_and_words = ended(start("-c", WHEN_LOADED.format(module=module, number=int(number))))
    name = signal.Signals(number).name
    assert code_and_words == (code, f"mbpo-jax: ended by {name}; nothing was started{AGAIN}\n")
    assert not list(Path().iterdir())


def test_the_library_leaves_signals_alone():
    usual = "signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2"
    script = (
        f"import signal; before = [signal.getsignal(n) for n in ({usual})]\n"
        "import mbpo_jax.__main__, mbpo_jax.cli\n"
        f"assert [signal.getsignal(n) for n in ({usual})] == before\n"
        "assert signal.set_wakeup_fd(-1) == -1"
    )
    assert ended(start("-c", script)) == (0, "")


def test_within_a_call_of_xla_a_signal_ends_the_program_and_what_it_started():
    process = start("-c", IN_XLA.format(trains=False))
    assert process.stdout
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (75, f"mbpo-jax: ended by SIGTERM; what was saved is kept{AGAIN}\n")
    wait_for(lambda: is_gone(child), PROMPT)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_no_library_can_swallow_it_where_it_reads_a_checkpoint(number, code):
    process = start("-c", IN_AN_EVENT_LOOP.format(number=int(number)))
    assert process.stdout
    assert process.stdout.read() == ""
    assert ended(process)[0] == code


def test_so_does_a_second_ctrl_c_while_it_trains():
    process = start("-c", IN_XLA.format(trains=True))
    assert process.stdout
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first one only asks"
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130
    assert said.startswith("mbpo-jax: ended by SIGINT amid what it did; the same command")
    wait_for(lambda: is_gone(child), PROMPT)


def test_in_a_library_the_second_ctrl_c_is_an_exception_and_ends_what_was_started():
    with (
        subprocess.Popen(["sleep", "600"]) as child,
        pytest.raises(KeyboardInterrupt),
        Interruption() as interruption,
        ends_with_us(child.kill),
    ):
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        signal.raise_signal(signal.SIGINT)
    assert child.returncode == -signal.SIGKILL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_is_started_with_a_signal_ignored_keeps_ignoring_it():
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGUSR2)
            assert not interruption.requested
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_ctrl_c_ends_the_planning_of_a_sweep_and_its_process():
    """As a terminal sends it, to both processes at once."""
    process = start("-m", "mbpo_jax", "sweep", "smoke", "--out", "out")

    def is_planning() -> list[int]:
        found = children_of(process.pid)
        return [c for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]

    (planning,) = wait_for(is_planning)
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process) == (130, "")
    wait_for(lambda: is_gone(planning), PROMPT)
    assert not Path("out").exists()


@pytest.mark.slow
def test_sigterm_while_training_is_compiled_ends_at_once_with_75():
    command = ["train", "gym/Hopper-v5", "--no-compilation-cache", "--run-dir", "run"]
    process = start("-u", "-m", "mbpo_jax", *command)
    assert process.stdout
    assert any(line.startswith("compiling the training step") for line in process.stdout)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    # How it ends depends on what it does just then; that it does, and what it says, does not.
    assert (code, said.splitlines()[-1].partition("SIGTERM")[0]) == (
        75,
        "mbpo-jax: ended by ",
    )
    assert not list(Path("run").glob("checkpoints/*"))
