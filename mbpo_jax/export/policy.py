"""Writing a policy into a file, which is compared with the policy before it is there."""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.export
import numpy as np

from mbpo_jax.errors import ConfigError, UserError, suggestion
from mbpo_jax.files import as_json, replacing, writing
from mbpo_jax.version import __version__

Format = Literal["onnx", "stablehlo"]
Act = Callable[[jax.Array], jax.Array]
"""`observation [O] float32 -> action [A] float32` in [-1, 1], the same each time."""
Run = Callable[[np.ndarray], np.ndarray]
"""`observation [B, O] float32 -> action [B, A]`, for any B."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""On which a StableHLO file runs, wherever it was written."""
TOLERANCE = 1e-5
"""Largest difference of an action component between the file and the policy."""
NUM_OBSERVATIONS = 1_000
OTHER_BATCHES = (1, 7)
"""Sizes of batches that are tried besides that of all observations."""


class ExportError(UserError):
    """A policy whose actions leave [-1, 1], or a file that would not act as its policy does."""


def export_policy(
    policy: Act,
    observation_size: int,
    action_size: int,
    path: Path,
    *,
    format: Format,
    facts: Mapping[str, Any],
    observations: np.ndarray | None = None,
) -> Path:
    """Write a policy into a file that runs without this package, and what is known of it beside it.

    The file maps observations `[batch, O]` to actions `[batch, A]`, float32, for any batch. Before
    it appears at `path`, it is loaded and compared with the policy. Matrix products are in full
    float32, in the file and in what it is compared with, so that actions depend on no device.

    Args:
      policy: for one observation, as `Agent.act` is; deterministic, its parameters closed over.
      observation_size: O.
      action_size: A.
      path: of the file; the description gets the same name with `.json` behind it.
      format: "onnx", or "stablehlo", which JAX reads.
      facts: whatever else the description should tell, by name.
      observations: `[N, O]` to compare on, such as the policy visits; 1,000 standard normal ones
        if None.

    Returns:
      The path.

    Raises:
      ConfigError: a library is missing, sizes do not fit, or there is no translation to ONNX of
        what the policy does.
      DiskError: it cannot be written there.
      ExportError: the policy's actions leave [-1, 1], or the file's differ from them. What lay at
        `path` before still does.
    """
    if format not in KINDS:
        raise ConfigError(f"format: {format!r} is not known; {suggestion(format, KINDS)}")
    kind = KINDS[format]
    _check_libraries(kind)
    _check_sizes(policy, observation_size, action_size)
    observations = _observations(observation_size, observations)
    # A policy that closes over a random key uses it each time it acts.
    with jax.default_matmul_precision("highest"), jax.debug_key_reuse(False):
        expected = np.asarray(jax.jit(jax.vmap(policy))(observations))
        _check_actions(expected)
        content, versions = kind.write(policy, observation_size)
    # The description of another file would be worse than none. So it comes last, and the old one
    # goes once there is room for both.
    about = path.with_name(f"{path.name}.json")
    with replacing(about) as beside, replacing(path) as file:
        file.write(content)
        file.flush()
        difference = _difference(kind.load(Path(file.name)), observations, expected)
        if not difference <= TOLERANCE:  # NaN is none, either.
            raise ExportError(
                f"{path} was not written: its actions would differ from the policy's by up to "
                f"{difference:.2g}, more than {TOLERANCE:g}; use another format: {', '.join(KINDS)}"
            )
        description = {
            "format": format,
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "observation": {"shape": ["batch", observation_size], "dtype": "float32"},
            "action": {"shape": ["batch", action_size], "dtype": "float32", "range": [-1.0, 1.0]},
            "how_to_run": [line.format(file=path.name) for line in kind.how_to_run],
            "compared": {"observations": len(observations), "max_difference": difference},
            "facts": facts,
            "versions": {"mbpo_jax": __version__, "jax": jax.__version__, **versions},
        }
        beside.write(as_json(description))
        beside.flush()
        with writing(about):
            about.unlink(missing_ok=True)
    return path


class _Kind(NamedTuple):
    """What belongs to a format.

    Attributes:
      libraries: that it needs besides this package's own.
      write: `(policy, observation_size) -> (content of the file, versions)`.
      load: from a file.
      how_to_run: lines of Python, with `{file}` for its name.
    """

    libraries: tuple[str, ...]
    write: Callable[[Act, int], tuple[bytes, dict[str, Any]]]
    load: Callable[[Path], Run]
    how_to_run: tuple[str, ...]


def _write_onnx(policy: Act, observation_size: int) -> tuple[bytes, dict[str, Any]]:
    from mbpo_jax.export import onnx_graph

    model = onnx_graph.make_model(policy, observation_size)
    versions = {name: metadata.version(name) for name in KINDS["onnx"].libraries}
    return model.SerializeToString(), {**versions, "opset": onnx_graph.OPSET}


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # of many kinds: a type that an operator does not take, say
        raise ExportError(
            f"ONNX Runtime cannot load the policy ({error}); use the format stablehlo"
        ) from error

    def run(observation: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["action"], {"observation": observation})[0])

    return run


def _write_stablehlo(policy: Act, observation_size: int) -> tuple[bytes, dict[str, Any]]:
    (batch,) = jax.export.symbolic_shape("batch")
    observation = jax.ShapeDtypeStruct((batch, observation_size), np.float32)
    exported = jax.export.export(jax.jit(jax.vmap(policy)), platforms=PLATFORMS)(observation)
    versions = {"calling_convention": exported.calling_convention_version}
    return bytes(exported.serialize()), {**versions, "platforms": exported.platforms}


def _load_stablehlo(path: Path) -> Run:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return lambda observation: np.asarray(exported.call(observation))


KINDS: dict[str, _Kind] = {
    "onnx": _Kind(
        libraries=("onnx", "onnxruntime"),
        write=_write_onnx,
        load=_load_onnx,
        how_to_run=(
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("{file}")',
            '(action,) = session.run(["action"], {{"observation": observation}})',
        ),
    ),
    "stablehlo": _Kind(
        libraries=(),
        write=_write_stablehlo,
        load=_load_stablehlo,
        how_to_run=(
            "import pathlib, jax.export",
            'policy = jax.export.deserialize(bytearray(pathlib.Path("{file}").read_bytes())).call',
            "action = policy(observation)",
        ),
    ),
}
"""By format."""


def _check_libraries(kind: _Kind) -> None:
    missing = [name for name in kind.libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not installed; pip install 'mbpo-jax[onnx]', or use the "
            "format stablehlo, which needs nothing more"
        )


def _check_sizes(policy: Act, observation_size: int, action_size: int) -> None:
    action = jax.eval_shape(policy, jax.ShapeDtypeStruct((observation_size,), np.float32))
    if (action.shape, action.dtype) != ((action_size,), np.float32):
        raise ConfigError(
            f"the policy makes {action.dtype} {list(action.shape)} of an observation "
            f"[{observation_size}]; it has to make an action float32 [{action_size}]"
        )


def _observations(size: int, given: np.ndarray | None) -> np.ndarray:
    """Return the observations to compare on, `[N, O]` float32."""
    if given is None:
        given = np.random.default_rng(0).standard_normal((NUM_OBSERVATIONS, size))
    observations = np.asarray(given, np.float32)
    if observations.ndim != 2 or observations.shape[1] != size or not len(observations):
        raise ConfigError(
            f"observations: {list(observations.shape)} is not [N, {size}] with N >= 1; leave them "
            "out to compare on random ones"
        )
    return observations


def _check_actions(actions: np.ndarray) -> None:
    largest = np.max(np.abs(actions))
    if not largest <= 1.0 + TOLERANCE:
        raise ExportError(
            f"the policy's actions reach {largest:.3g} and have to lie in [-1, 1]; train it again "
            "if that is nan, else bound them, for instance by tanh"
        )


def _difference(run: Run, observations: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference from the actions expected, over several sizes of batches."""
    sizes = (len(observations), *OTHER_BATCHES)
    differences = [np.abs(run(observations[:n]) - expected[:n]) for n in sizes]
    return float(np.max(np.concatenate(differences)))
