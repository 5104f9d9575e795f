"""What every test relies on: the CPU, a shared compile cache, strict JAX, a scratch folder."""

import contextlib
import gc
import os
import signal
from importlib import metadata
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "jax"

# Tests compile much and compute little, so code is not optimised: that halves their time.
XLA_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if metadata.version("jaxlib").startswith("0.10."):  # later ones do not know it
    XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# Before JAX is imported, and as variables, so that programs started by a test inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# Where in the source an operation comes from is written into programs nobody reads.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import hypothesis
import jax
import pytest

# Tracing makes millions of objects that live on; to look for garbage among them takes a tenth.
gc.freeze()
gc.set_threshold(100_000, 10, 10)

# Whoever starts the tests in the background may have Ctrl-C ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Refuse reused keys and silent rank promotion in a test and in the fixtures set up for it.

    Brax promotes ranks, so a test marked `brax` may, too.
    """
    rank_promotion = "allow" if item.get_closest_marker("brax") else "raise"
    with jax.debug_key_reuse(True), jax.numpy_rank_promotion(rank_promotion):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _scratch_session(tmp_path_factory):
    """Keep shared fixtures, which are set up before `_scratch`, out of the repository too."""
    with contextlib.chdir(tmp_path_factory.mktemp("cwd")):
        yield


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    """Run every test in a folder of its own: MuJoCo writes a log into the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def retraced():
    """Train what this test has changed in the program, and let no later test train it."""
    from mbpo_jax.training.compiled import kept_program

    kept_program.cache_clear()
    yield
    kept_program.cache_clear()


@pytest.fixture
def undrawn(request, monkeypatch):
    """Train in half the time: play no episode for a picture, and draw no figures.

    A test marked `figures` has the figures.
    """
    from mbpo_jax.training import driver, playback

    monkeypatch.setattr(playback, "render", lambda *_, **__: playback.Shown(Path(), []))
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr(driver, "draw_figures", lambda *_: None)


@pytest.fixture
def key() -> jax.Array:
    """Return a fresh key; a test that needs several splits it."""
    return jax.random.key(0)
