"""Policies as files: they act as the policy does, say what they are, or are not there."""

import functools
import hashlib
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from mbpo_jax.agents.sac import make_sac
from mbpo_jax.agents.tabular import make_tabular_agent
from mbpo_jax.algorithms.policy_search import make_policy_search
from mbpo_jax.config import Config, PolicySearchConfig, SACConfig, TabularConfig
from mbpo_jax.envs.termination import never
from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.export import ExportError, export_policy, policy
from mbpo_jax.nets import networks
from mbpo_jax.types import Agent, Env, EnvSpec

pytestmark = pytest.mark.smoke

N_OBS, N_ACT = 5, 2
FORMATS = ("onnx", "stablehlo")
SPEC = EnvSpec("tiny", N_OBS, N_ACT, episode_length=10, action_repeat=1, dt=0.1)


def acting(agent: Agent, state):
    """Return how an agent acts without exploring, as a function of observations."""
    assert agent.deterministic is not None
    return functools.partial(agent.deterministic, state)


def sac_policy(key: jax.Array):
    agent = make_sac(SPEC, SACConfig(hidden_sizes=(8, 8)))
    return acting(agent, agent.init(key)), None


def search_policy(key: jax.Array):
    env = Env(SPEC, lambda key: None, lambda *_: None, terminated=never)
    settings = PolicySearchConfig(hidden_sizes=(8,))
    config = Config(algorithm="policy_search", policy_search=settings)
    agent = make_policy_search(env, config).agent
    return acting(agent, agent.init(key)), None


def tabular_policy(key: jax.Array):
    agent = make_tabular_agent(SPEC._replace(tabular=True), TabularConfig(), "dyna_q")
    init_key, q_key = jax.random.split(key)
    state = agent.init(init_key)._replace(q=jax.random.normal(q_key, (N_OBS, N_ACT)))
    return acting(agent, state), np.eye(N_OBS)


KINDS = {"sac": sac_policy, "search": search_policy, "tabular": tabular_policy}


def linear(observation: jax.Array) -> jax.Array:
    return jnp.tanh(observation[:N_ACT])


def load(path: Path):
    """Run the lines of the description that say how to run the file, in its folder."""
    lines = json.loads(path.with_name(f"{path.name}.json").read_text())["how_to_run"]

    def run(observation: np.ndarray) -> np.ndarray:
        names = {"observation": observation}
        exec("\n".join(lines), names)
        return np.asarray(names["action"])

    return run


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_acts_as_its_policy_does_on_batches_of_any_size(tmp_path, key, kind, format):
    act, observations = KINDS[kind](key)
    path = export_policy(
        act, N_OBS, N_ACT, tmp_path / "policy", format=format, facts={}, observations=observations
    )
    run = load(path)
    if observations is None:
        observations = 3.0 * np.random.default_rng(1).standard_normal((11, N_OBS))
    observations = observations.astype(np.float32)
    for rows in (observations, observations[:1], observations[:3]):
        np.testing.assert_allclose(run(rows), jax.vmap(act)(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_the_description_tells_all_there_is_to_know(tmp_path, format):
    facts = {"algorithm": "sac", "return": np.float32(1.5), "simulator_range": np.array([-2, 2])}
    path = tmp_path / f"policy.{format}"
    assert export_policy(linear, N_OBS, N_ACT, path, format=format, facts=facts) == path
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{path.name}.json"}
    found = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert found["format"] == format
    assert found["file"] == path.name
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["observation"] == {"shape": ["batch", N_OBS], "dtype": "float32"}
    assert found["action"] == {"shape": ["batch", N_ACT], "dtype": "float32", "range": [-1, 1]}
    assert found["compared"]["observations"] == 1000
    assert found["compared"]["max_difference"] <= 1e-5
    assert found["facts"] == {"algorithm": "sac", "return": 1.5, "simulator_range": [-2, 2]}
    assert found["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_a_file_that_acts_otherwise_is_not_left_behind(tmp_path, monkeypatch, format, wrong):
    kind = policy.KINDS[format]

    def other(act, observation_size):
        return kind.write(lambda x: act(x) + jnp.float32(wrong), observation_size)

    monkeypatch.setitem(policy.KINDS, format, kind._replace(write=other))
    with pytest.raises(ExportError, match=r"differ from the policy's by up to (0\.001|nan)"):
        export_policy(linear, N_OBS, N_ACT, tmp_path / "policy", format=format, facts={})
    assert not list(tmp_path.iterdir())


def test_a_policy_and_its_description_are_written_both_or_neither(tmp_path):
    path = tmp_path / "policy.stablehlo"
    path.write_text("before")
    (tmp_path / "policy.stablehlo.json" / "in the way").mkdir(parents=True)
    with pytest.raises(DiskError, match=r"cannot write .*policy\.stablehlo\.json: Is a directory"):
        export_policy(linear, N_OBS, N_ACT, path, format="stablehlo", facts={})
    assert path.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


def test_what_lay_there_survives_an_export_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "policy"
    path.write_text("old")
    broken = policy.KINDS["stablehlo"]._replace(
        load=lambda path: lambda x: np.zeros((len(x), N_ACT))
    )
    monkeypatch.setitem(policy.KINDS, "stablehlo", broken)
    with pytest.raises(ExportError):
        export_policy(linear, N_OBS, N_ACT, path, format="stablehlo", facts={})
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("missing", "names"),
    [({"onnx", "onnxruntime"}, "onnx and onnxruntime"), ({"onnxruntime"}, "onnxruntime")],
)
def test_a_missing_library_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, missing, names):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name)
    )
    with pytest.raises(ConfigError, match=rf"^{names} not installed; .*'mbpo-jax\[onnx\]'"):
        export_policy(linear, N_OBS, N_ACT, tmp_path / "policy", format="onnx", facts={})


@pytest.mark.parametrize(
    ("act", "observations", "error", "message"),
    [
        (lambda x: x[:1], None, ConfigError, r"float32 \[1\] .* make an action float32 \[2\]"),
        (lambda x: jnp.argmax(x)[None], None, ConfigError, r"int32 \[1\]"),
        (linear, np.zeros((3, N_OBS + 1)), ConfigError, r"\[3, 6\] is not \[N, 5\]"),
        (linear, np.zeros((0, N_OBS)), ConfigError, "N >= 1"),
        (lambda x: 3.0 * x[:N_ACT], np.ones((3, N_OBS)), ExportError, "reach 3 .*tanh"),
        (lambda x: jnp.nan * x[:N_ACT], None, ExportError, "reach nan"),
        (lambda x: jnp.tanh(jnp.sort(x)[:N_ACT]), None, ConfigError, "primitive sort.*stablehlo"),
        (
            lambda x: jnp.tanh(x[jnp.argmax(x)]) * linear(x),
            None,
            ConfigError,
            "at a place that depends",
        ),
    ],
)
def test_a_policy_that_cannot_be_exported_is_refused(tmp_path, act, observations, error, message):
    with pytest.raises(error, match=message):
        export_policy(
            act,
            N_OBS,
            N_ACT,
            tmp_path / "policy",
            format="onnx",
            facts={},
            observations=observations,
        )
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean onnx"):
        export_policy(linear, N_OBS, N_ACT, tmp_path / "policy", format="onxx", facts={})


def normalised(key: jax.Array):
    """Return a network with layer norm and a softplus."""
    net = networks.make_mlp(N_OBS, (8,), N_ACT, layer_norm=True, activation=jax.nn.softplus)
    params = net.init(key)
    return lambda x: jnp.tanh(net.apply(params, x))


ACTIVATIONS = ("celu", "elu", "gelu", "leaky_relu", "relu6", "selu", "silu", "softmax", "softplus")


@pytest.mark.parametrize(
    "act",
    [
        *(pytest.param(getattr(jax.nn, name), id=name) for name in ACTIVATIONS),
        pytest.param(lambda x: jax.nn.gelu(x, approximate=False), id="gelu_exact"),
        pytest.param(lambda x: jnp.ones(N_OBS), id="constant"),
        pytest.param(lambda x: jnp.concatenate([x[1:], jnp.ones(1)]), id="constant_part"),
        pytest.param(lambda x: x @ jnp.outer(x, x), id="products"),
        pytest.param(lambda x: jnp.arange(25.0).reshape(5, 5) @ x / 100.0, id="kernel_first"),
        pytest.param(lambda x: jax.nn.one_hot(jnp.argmin(x), N_OBS), id="one_hot"),
        pytest.param(lambda x: jnp.flip(jnp.eye(N_OBS))[:, jnp.argmax(x)], id="column"),
        pytest.param(lambda x: x.reshape(N_OBS, 1).T[0, 1::2] ** 3 - jnp.mean(x), id="shapes"),
        pytest.param(lambda x: jnp.where(jnp.linalg.norm(x) > 2.0, jnp.sign(x), x), id="choice"),
        pytest.param(normalised(jax.random.key(1)), id="layer_norm"),
    ],
)
def test_onnx_knows_what_policies_are_made_of(tmp_path, act):
    bounded = lambda x: jnp.tanh(act(x))  # noqa: E731
    size = jax.eval_shape(bounded, jnp.zeros(N_OBS)).shape[0]
    export_policy(bounded, N_OBS, size, tmp_path / "policy.onnx", format="onnx", facts={})


@pytest.mark.parametrize("format", FORMATS)
def test_a_policy_may_close_over_a_random_key(tmp_path, key, format):
    act = lambda x: jnp.tanh(x[:N_ACT] + jax.random.normal(key, (N_ACT,)))  # noqa: E731
    export_policy(act, N_OBS, N_ACT, tmp_path / "policy", format=format, facts={})


def test_what_onnx_runtime_does_not_know_is_told(tmp_path):
    """Its `And` takes truth values only."""
    act = lambda x: linear(x) * (jnp.argmax(x) & 1)  # noqa: E731
    with pytest.raises(
        ExportError, match=r"^ONNX Runtime cannot load .*; use the format stablehlo"
    ):
        export_policy(act, N_OBS, N_ACT, tmp_path / "policy", format="onnx", facts={})
    assert not list(tmp_path.iterdir())


def test_an_onnx_graph_is_plain(tmp_path, key):
    """A network is its products, sums and activations: nothing of the width that is not used."""
    path = tmp_path / "policy.onnx"
    export_policy(sac_policy(key)[0], N_OBS, N_ACT, path, format="onnx", facts={})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == [
        *("MatMul", "Add", "Max") * 2,
        *("MatMul", "Add", "Split", "Tanh", "Identity"),
    ]
    assert onnxruntime.InferenceSession(path).get_inputs()[0].shape == ["batch", N_OBS]


@pytest.mark.parametrize("format", FORMATS)
def test_float64_elsewhere_does_not_matter(tmp_path, key, format):
    act, _ = sac_policy(key)
    with jax.enable_x64(True):
        export_policy(act, N_OBS, N_ACT, tmp_path / "policy", format=format, facts={})


def test_a_stablehlo_file_is_for_all_platforms(tmp_path):
    path = export_policy(linear, N_OBS, N_ACT, tmp_path / "policy", format="stablehlo", facts={})
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in exported.in_avals[0].shape] == ["batch", str(N_OBS)]
