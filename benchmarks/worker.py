"""What the two sides of a comparison share: the work's sizes, its data, and the way to ask for it.

A side is a process that stays alive, so that requests to two of them can alternate while both stay
warm; an idle one waits on its standard input and uses no processor. A request and its answer are
one JSON line each. Imports neither jax nor torch: each side brings only its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent

OBSERVATION_SIZE, ACTION_SIZE = 11, 3  # Hopper
BATCH_SIZE = 256
SAC_HIDDEN_SIZE = 256
NUM_MEMBERS, NUM_ELITES = 7, 5
MODEL_HIDDEN_SIZE, MODEL_NUM_LAYERS = 200, 4
NUM_ROLLOUTS = 100_000
ROLLOUT_BUFFER_SIZE = 4 * NUM_ROLLOUTS  # four model fits an epoch, kept for one epoch
HOLDOUT_RATIO = 0.2
NUM_TRANSITIONS = 102_400  # its training split is 320 whole minibatches

Component = Callable[[int], float]  # repeats -> seconds per unit
Answer = Callable[[int], Any]  # likewise, of any result that JSON can hold


class Transitions(NamedTuple):
    """Float32 arrays of N transitions: [N, O], [N, A], [N, O], [N] and bool [N]."""

    observation: np.ndarray
    action: np.ndarray
    next_observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


def random_transitions(seed: int = 0, size: int = NUM_TRANSITIONS) -> Transitions:
    """Draw `size` transitions of a noisy walk around Hopper's upright pose, 2 % of them falls."""
    rng = np.random.default_rng(seed)
    fall_probability = 0.02
    scale = np.r_[0.1, 0.05, np.ones(OBSERVATION_SIZE - 2)]
    observation = rng.normal(size=(size, OBSERVATION_SIZE)) * scale
    observation[:, 0] += 1.25  # the torso's height: rollouts should end by falling, as real ones do
    next_observation = observation + 0.1 * rng.normal(size=observation.shape) * scale
    return Transitions(
        observation.astype(np.float32),
        rng.uniform(-1.0, 1.0, (size, ACTION_SIZE)).astype(np.float32),
        next_observation.astype(np.float32),
        rng.normal(1.0, 0.5, size).astype(np.float32),
        rng.random(size) < fall_probability,
    )


def num_threads() -> int:
    """Count the processors this process may use, which is also what XLA's CPU client takes."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere; it honours containers and `taskset`
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(description: Mapping[str, Any], components: Mapping[str, Answer]) -> None:
    """Answer requests on standard input, after one line that describes this side, until it ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not become a reply
    print(json.dumps(dict(description)), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        result = components[request["component"]](request["repeats"])
        print(json.dumps({**request, "result": result}), file=replies, flush=True)


class Worker:
    """One side of a comparison, seen from the process that asks; a context manager."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `command` in the repository root, with `environment` added to this process's."""
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.description = self._reply()

    def measure(self, component: str, repeats: int) -> Any:
        """Return what `component` says: seconds per unit, averaged over `repeats` units."""
        self.ask(component, repeats)
        return self.result()

    def ask(self, component: str, repeats: int) -> None:
        """Start a measurement without waiting for it, so that several sides can work at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"component": component, "repeats": repeats}) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Wait for the measurement that was asked for and return it."""
        return self._reply()["result"]

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(
                f"{self._process.args} ended with exit code {code}; its own message stands above"
            )
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
