"""Commands of mbpo-jax within a process that is kept, so that hundreds of them are affordable."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.faults.record import Fault, judged

PATIENCE = 300.0
"""Seconds after which a fault hangs, on however busy a machine."""


class Ending(NamedTuple):
    """How a command ended.

    Attributes:
      code: its exit code; None if it raised an error.
      output: what it printed, and the traceback.
    """

    code: int | None
    output: str

    def problems(self, allowed: Sequence[int] = (0, 2)) -> list[str]:
        """Return what is unexpected: another exit code, a traceback, or no message."""
        if self.code is None:
            return ["it crashed"]
        if self.code not in allowed:
            return [f"exit code {self.code}"]
        if self.code == 2 and "mbpo-jax: " not in self.output:
            return ["it does not say why it is refused"]
        return ["there is a traceback in the output"] if "Traceback" in self.output else []


def attempt(command: Sequence[str], folder: Path) -> Ending:
    """Run a command in a folder."""
    from mbpo_jax.cli import main

    return captured(lambda: main(list(command)), folder)


def captured(call: Callable[[], int], folder: Path) -> Ending:
    """Call something in a folder, which returns an exit code, and keep all that is printed.

    Libraries write to descriptors of their own, and a limit of the size of files is none of a pipe.
    """
    reader, writer = os.pipe()
    kept, code, chunks = {number: os.dup(number) for number in (1, 2)}, None, []
    read = threading.Thread(target=lambda: chunks.extend(iter(lambda: os.read(reader, 2**16), b"")))
    read.start()
    for number in kept:
        os.dup2(writer, number)
    os.close(writer)
    with contextlib.chdir(folder):
        try:
            code = call()
        except Exception:
            traceback.print_exc()
    sys.stdout.flush()
    for number, descriptor in kept.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    read.join()
    os.close(reader)
    return Ending(code, b"".join(chunks).decode(errors="replace"))


@contextlib.contextmanager
def programs_kept() -> Iterator[None]:
    """Make the random steps of a training once, however often it is begun, and draw no figures.

    All of that follows from the configuration, which a fault in a file cannot change unnoticed.
    What is compiled, a process keeps by itself.
    """
    import jax
    import jax.numpy as jnp

    from mbpo_jax.training import driver, playback

    compile_program, begun = driver.compile_program, {}

    def begun_once(setup: Any, announce: Any) -> Any:
        compiled = compile_program(setup, announce)

        def start(told: Any) -> Any:
            if setup.group not in begun:
                begun[setup.group] = compiled.start(told)
            # A copy, as the first step takes the state's own arrays.
            return jax.tree.map(jnp.copy, begun[setup.group])

        return compiled._replace(start=start)

    with contextlib.ExitStack() as stack:
        for module, name, other in (
            (driver, "compile_program", begun_once),
            (driver, "draw_figures", lambda *_, **__: None),
            (playback, "render", lambda env, config, path, *_, **__: playback.Shown(path, [])),
        ):
            stack.enter_context(mock.patch.object(module, name, other))
        yield


_entered = contextlib.ExitStack()
"""What a worker process has entered, until it ends."""


def keep_programs() -> None:
    """Enter `programs_kept` for as long as this process lives."""
    _entered.enter_context(programs_kept())


class Worker:
    """A process that makes one fault after the other; one that dies or hangs is replaced."""

    def __init__(self, begin: Callable[[], None] | None = None) -> None:
        """Take what the process calls first."""
        self._begin = begin
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def make(self, fault: Callable[..., Fault], *arguments: Any) -> Fault:
        """Have a fault made, and tell what came of it, whatever it was."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(1, context, self._begin)
        try:
            return self._pool.submit(fault, *arguments).result(PATIENCE)
        except concurrent.futures.process.BrokenProcessPool:
            problem = "the process died"
        except TimeoutError:
            problem = f"it did not end within {PATIENCE:.0f} s"
        except Exception as error:
            problem = f"the campaign itself failed: {error!r}"
        self.close(kill=True)
        return judged(fault.__module__, [problem], "")

    def close(self, kill: bool = False) -> None:
        """End the process, or kill it."""
        if self._pool:
            for process in list((self._pool._processes or {}).values()) if kill else ():
                process.kill()
            self._pool.shutdown()
            self._pool = None
