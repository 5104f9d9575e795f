"""The Python face: what comes back from training, and what can be done with it."""

import dataclasses
import functools
import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.errors import ConfigError
from mbpo_jax.training import checkpoint, devices, layout, playback, run_directory
from mbpo_jax.training.group import Group
from mbpo_jax.training.loop import acting
from tests.probe_environments import linear_gaussian, tiny_config
from tests.programs import collected

ENV = linear_gaussian(noise=0.05, episode_length=6)


@pytest.fixture(autouse=True)
def _fast(undrawn, monkeypatch):
    """Draw no pictures; devices are set up already when these tests run."""
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)


def train(run_dir="run", config: Config | None = None, **options) -> mbpo_jax.Run:
    return mbpo_jax.train(config or tiny_config(), run_dir, env=ENV, **options)


@functools.cache
def trained() -> Path:
    """Train two seeds, once for all tests."""
    assert train("trained", seeds=2, seed=5).state == "finished"
    return Path("trained").resolve()


def opened(**selected) -> mbpo_jax.Run:
    run = mbpo_jax.load(trained(), ENV)
    return run.select(**selected) if selected else run


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_settings_go_over_the_preset_of_a_name(monkeypatch):
    monkeypatch.setattr(layout, "make_env", lambda config: ENV)
    changes = {"total_env_steps": 150, "eval_every": 50, "sac": {"hidden_sizes": (8,)}}
    run = mbpo_jax.train("pendulum", presets=("debug",), algorithm="sac", seed=3, **changes)
    assert (run.path, run.seeds) == (Path("runs/pendulum-sac-debug-3"), [3])
    assert (run.config.sac.hidden_sizes, run.config.env.name) == ((8,), "pendulum")
    assert repr(run) == "Run('runs/pendulum-sac-debug-3': sac on pendulum, seed 3, finished)"
    with pytest.raises(ConfigError, match="has no learned model"):
        _ = run.model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algoritm": "sac"}, "algoritm: no such field"),
        # Also where it is given the value that it has anyway.
        ({"algorithm": "sac", "expansion": {"horizon": 2}}, "expansion.horizon: sac does not read"),
        ({"seeds": 0}, "num_seeds: 0"),
        ({"presets": ("debug",)}, "presets: a whole configuration has them"),
        ({"init_from": "nowhere"}, "nowhere is no run directory"),
        ({"seeds": 1, "num_seeds": 2}, "seeds: it is num_seeds by another name"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(settings, message):
    with pytest.raises(ConfigError, match=message):
        train(**settings)
    assert not Path("run").exists()


def test_evaluations_and_metrics_are_data_frames_and_are_told_as_they_come():
    told = []
    run = train(seeds=2, seed=5, on_evaluation=told.append)
    assert len(run.evals) == 10
    assert list(run.evals["seed"]) == [5, 6] * 5
    assert [row["return_mean"] for rows in told for row in rows] == list(run.evals["return_mean"])
    assert told[1][1]["sac/alpha"] == run.metrics["sac/alpha"][1]
    assert told[0][1].keys() == set(run.evals.columns)  # before training there are no metrics
    assert list(run.select(seed=6).evals["env_steps"]) == [0, 18, 26, 34, 42]
    assert list(run.gradients.columns) == ["env_steps", "run", "seed"]
    again = train(seeds=2, seed=5, on_evaluation=told.append)
    assert (again.state, len(told)) == ("finished", 5)


def test_runs_that_differ_in_settings_have_them_as_columns():
    runs = [dataclasses.replace(tiny_config(), seed=seed) for seed in (1, 2)]
    sac = dataclasses.replace(runs[1].sac, gamma=0.5)
    group = Group(dataclasses.replace(runs[0], num_seeds=2), (runs[0], runs[1]))
    group = group._replace(runs=(runs[0], dataclasses.replace(runs[1], sac=sac)))
    from mbpo_jax.training import driver

    assert driver.train_group(group, Path("group"), env=ENV) == "finished"
    evals = mbpo_jax.load("group", ENV).evals
    assert list(evals["sac.gamma"][:2]) == [runs[0].sac.gamma, 0.5]


def test_a_policy_acts_as_the_agent_does_without_exploring():
    run = opened(seed=6)
    policy, observations = run.policy(), np.linspace(-1.0, 1.0, 12).reshape(3, 2, 2)
    actions = policy(observations)
    assert isinstance(actions, np.ndarray)
    assert (actions.shape, actions.dtype) == ((3, 2, 1), np.float32)
    learned = playback.of_run(run.learned(), 0)
    begin, act = acting(make_algorithm(ENV, run.config), *learned)
    state = ENV.reset(jax.random.key(0))._replace(observation=jnp.float32(observations[1, 0]))
    expected, _ = act(jax.random.key(0), begin(), state)
    np.testing.assert_allclose(actions[1, 0], expected, atol=1e-6)
    jitted = jax.jit(policy)(jnp.float32(observations))
    assert isinstance(jitted, jax.Array)
    np.testing.assert_allclose(jitted, actions, atol=1e-6)
    assert policy([0.0, 0.0]).shape == (1,)
    with pytest.raises(ValueError, match="last axis has to be 2"):
        policy(np.zeros((2, 3)))


@pytest.mark.slow
def test_a_planner_has_no_policy_of_observations():
    run = train(config=dataclasses.replace(tiny_config(), algorithm="mpc", eval_episodes=1))
    with pytest.raises(ConfigError, match=r"mpc has no policy .* use play\(\)"):
        run.policy()
    assert len(run.play(2).returns) == 2


def test_a_tabular_policy_takes_the_move_of_greatest_value():
    config = dataclasses.replace(mbpo_jax.preset("maze"), algorithm="dyna_q")
    env = mbpo_jax.make_env(config.env)
    agent = make_algorithm(env, config).agent
    q = jax.random.normal(jax.random.key(0), (env.spec.observation_size, env.spec.action_size))
    state = agent.init(jax.random.key(1))._replace(q=q)
    assert agent.deterministic is not None
    moves = agent.deterministic(state, jnp.eye(env.spec.observation_size))
    np.testing.assert_array_equal(jnp.argmax(moves, axis=-1), jnp.argmax(q, axis=-1))
    assert float(moves.sum()) == env.spec.observation_size


def test_the_model_tells_what_every_member_expects():
    run = opened(seed=5)
    model = run.model
    observation = np.linspace(-1.0, 1.0, 8).reshape(2, 2, 2)
    mean, std = model.predict(observation, np.zeros((2, 2, 1)))
    assert mean.shape == std.shape == (model.num_members, 2, 2, 3) == (3, 2, 2, 3)
    assert (std > 0).all()
    assert len(model.elites) == 2
    # Row by row, by the program that makes rollouts: without noise, each share meets its elite.
    dynamics = make_algorithm(ENV, run.config).model
    assert dynamics is not None
    view = dynamics.ready(playback.of_run(run.learned().model, 0))
    rows = jnp.tile(jnp.float32(observation.reshape(-1, 2)), (2, 1))
    point, predicted = dynamics.step(
        jax.random.key(0), view, dynamics.start(rows, ()), jnp.zeros((8, 1)), "members"
    )
    expected = mean[model.elites].reshape(8, 3)
    np.testing.assert_allclose(predicted.reward, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(point.observation, expected[:, 1:], atol=1e-5)
    with pytest.raises(ValueError, match=r"\(2,\) and \(2,\); the last axes have to be 2 and 1"):
        model.predict(np.zeros(2), np.zeros(2))


def test_trajectories_are_those_of_the_returns():
    played = opened().play(7, seed=5)
    assert len(played.trajectories) == 7
    for total, length, made in zip(*played, strict=True):
        assert made.reward.shape == (length,)
        np.testing.assert_allclose(made.reward.sum(), total, rtol=1e-5)
        np.testing.assert_array_equal(made.next_observation[:-1], made.observation[1:])
    bare = opened().play(7, seed=5, record=False)
    np.testing.assert_array_equal(bare.returns, played.returns)
    assert bare.trajectories == []
    with pytest.raises(ConfigError, match="several runs; choose a seed of: 5, 6"):
        opened().play(2)
    with pytest.raises(ConfigError, match="several runs; choose a seed of: 5, 6"):
        _ = opened().model
    with pytest.raises(ConfigError, match="by its seed or by its place"):
        opened().select()
    with pytest.raises(ConfigError, match=r"0 runs of .* have the seed 4; it has 5, 6"):
        opened().play(2, seed=4)


def test_what_did_best_has_the_return_of_the_best_evaluation():
    """The same episodes, by their key, are paid the same."""
    evals = opened().evals
    for seed in (5, 6):
        own, run = evals[evals["seed"] == seed], opened(seed=seed)
        steps = int(own.loc[own["return_mean"].idxmax()]["env_steps"])
        assert (run.env_steps(best=True), run.env_steps()) == (steps, 42)
        best = playback.of_run(run.learned(best=True), 0)
        play = acting(make_algorithm(ENV, run.config), *best)
        key = jax.random.fold_in(jax.random.split(jax.random.key(seed))[1], steps)
        returns, *_ = play_episodes(ENV, *play, key, run.config.eval_episodes)
        np.testing.assert_allclose(returns.mean(), own["return_mean"].max(), rtol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_without_what_did_best_is_gone_on_with(monkeypatch):
    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *given: save(*given[:5]))
        run = train("old", dataclasses.replace(tiny_config(), total_env_steps=26))
    with pytest.raises(ConfigError, match="does not hold what did best"):
        run.policy(best=True)
    on = train("old")
    assert on.env_steps() == 42
    assert on.env_steps(best=True) in (34, 42)


@pytest.mark.slow
def test_a_run_begins_with_what_another_one_learned():
    """With steps of no size it stays there."""
    source = train("source")
    still = dataclasses.replace(tiny_config().sac, learning_rate=1e-30)
    config = dataclasses.replace(tiny_config(), algorithm="sac", sac=still, num_seeds=2)
    run = train("same", config, init_from=source)
    assert_equal(run.select(run=1).learned().agent.policy, source.learned().agent.policy)
    fresh = train("fresh", config)
    weights = jax.tree.leaves(fresh.learned().agent.policy)[-1]
    assert (weights != jax.tree.leaves(run.learned().agent.policy)[-1]).any()
    # Of a run with a model, the model too; its fit goes on from there.
    begun = train("model", dataclasses.replace(tiny_config(), seed=9), init_from=source)
    noted = json.loads(Path("model/environment.json").read_text())["init_from"]
    assert (begun.state, noted) == (
        "finished",
        {"run": str(source.path.resolve()), "from_here": "../source", "env_steps": 42},
    )
    # What has begun needs its source no more, and is not taken for what began otherwise.
    shutil.rmtree("source")
    assert train("model", begun.config, init_from="source").state == "finished"
    with pytest.raises(ConfigError, match="fresh was not begun with source"):
        train("fresh", config, init_from="source")


@pytest.mark.parametrize(
    ("checkpoint", "noted", "begins"),
    [
        ("partial-0000000010", "../source", True),  # a first save that was cut off
        ("0000000010", "../source", False),
        ("0000000010", "source", None),
        ("0000000010", "../moved", False),  # with the run, both to another folder
        ("0000000010", "relative", False),  # as it was written, by an earlier version
    ],
)
def test_what_a_run_began_with_is_known_by_its_place(checkpoint, noted, begins, monkeypatch):
    """Not by how the path was written, nor where one stood."""
    folder = Path("run", "checkpoints", checkpoint)
    folder.mkdir(parents=True)
    Path("elsewhere").mkdir()
    source = Path("elsewhere", noted).resolve()
    from_here = "../source" if "moved" in noted else os.path.relpath(source, "run")
    place = {"run": str(source), "from_here": from_here, "env_steps": 42}
    if noted == "relative":
        place = {"run": "../source", "env_steps": 42}
    Path("run", "environment.json").write_text(json.dumps({"init_from": place}))
    run_dir = Path("run").resolve()
    monkeypatch.chdir("elsewhere")
    if begins is None:
        with pytest.raises(ConfigError, match="was not begun with"):
            run_directory.begins(run_dir, Path("../source"))
    else:
        assert run_directory.begins(run_dir, Path("../source")) == begins


def test_a_run_whose_listener_fails_is_saved_and_goes_on():
    def fail(rows):
        raise RuntimeError("no connection")

    with pytest.raises(RuntimeError, match="no connection"):
        train("told", seeds=2, seed=5, on_evaluation=fail)
    run = mbpo_jax.load("told", ENV)
    assert (run.state, run.env_steps()) == ("interrupted", 10)
    assert train("told", seeds=2, seed=5).state == "finished"


def test_a_run_that_was_killed_is_not_said_to_be_running():
    shutil.copytree(trained(), "killed")
    status = json.loads(Path("killed/status.json").read_text())
    Path("killed/status.json").write_text(json.dumps(status | {"state": "running"}))
    assert mbpo_jax.load("killed", ENV).state == "interrupted"


def test_settings_of_the_environment_are_a_group_as_the_others(monkeypatch):
    monkeypatch.setattr(layout, "make_env", lambda config: ENV)
    with pytest.raises(ConfigError, match=r"env\.episode_lenth: no such field"):
        mbpo_jax.train("pendulum", presets="debug", env={"episode_lenth": 50})
    with pytest.raises(ConfigError, match="an environment is given already"):
        mbpo_jax.train(ENV, env=ENV)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 3}, "holds 2 runs, which cannot begin 3"),
        ({"sac": {"hidden_sizes": (4,)}}, "its agent has other shapes"),
        ({"ensemble": {"num_members": 4}}, "its model has other shapes"),
    ],
)
def test_what_does_not_fit_a_run_cannot_begin_it(changes, message):
    options = {"num_seeds": 2} | changes
    with pytest.raises(ConfigError, match=message):
        train("begun", init_from=opened(), **options)
    assert not Path("begun").exists()


@pytest.mark.slow
def test_numbers_side_by_side_are_mapped_over():
    program = mbpo_jax.make_program(ENV)
    configs = [
        dataclasses.replace(
            tiny_config(),
            algorithm="sac",
            sac=dataclasses.replace(tiny_config().sac, gamma=gamma),
        )
        for gamma in (0.5, 0.9)
    ]
    keys = jax.random.split(jax.random.key(0), 2)

    def start(config, key):
        return collected(program, config, key)

    def step(config, state):
        return program.step(config, config.random_steps, state)[1]["sac/q_mean"]

    both, again = mbpo_jax.stack(configs), jax.random.clone(keys)
    with jax.debug_key_reuse(False):  # which takes the halves of a mapped split for one key
        together = jax.jit(jax.vmap(step))(both, jax.jit(jax.vmap(start))(both, keys))
    pairs = zip(configs, again, strict=True)
    apart = [step(config, start(config, key)) for config, key in pairs]
    np.testing.assert_allclose(together, apart, rtol=1e-4)
    with pytest.raises(ConfigError, match="algorithm: 'sac' and 'mbpo' cannot be side by side"):
        mbpo_jax.stack([configs[0], tiny_config()])


def test_a_run_that_is_not_there_or_not_trained_is_named():
    with pytest.raises(ConfigError, match="nowhere is no run directory"):
        mbpo_jax.load("nowhere")
    near = trained().parent / f"{trained().name}s"
    with pytest.raises(ConfigError, match=f"did you mean .*{trained().name}"):
        mbpo_jax.load(near)
    shutil.copytree(trained(), "sweeps/mine/groups/one")
    with pytest.raises(ConfigError, match="some in it, such as sweeps/mine/groups/one"):
        mbpo_jax.load("sweeps/mine")
    shutil.copytree(trained(), "copy")
    shutil.rmtree("copy/checkpoints")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        mbpo_jax.load("copy", ENV).policy(seed=5)


def test_another_thread_can_train():
    """Only the main one is handed signals."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(train("thread", seeds=2).state))
    thread.start()
    thread.join()
    assert ended == ["finished"]


@pytest.mark.parametrize("format", ["onnx", "stablehlo"])
def test_a_policy_leaves_as_a_file_that_says_what_it_is(format):
    run = opened(seed=6)
    path = run.export("p", format=format, best=True)
    facts = json.loads(Path("p.json").read_text())
    assert path == Path("p")
    assert facts["facts"]["env_steps"] == run.env_steps(best=True)
    assert (facts["facts"]["seed"], facts["facts"]["action_scale"]) == (6, [1.0])
    assert facts["compared"]["observations"] == 1000
    assert facts["compared"]["max_difference"] <= 1e-5
    if format == "stablehlo":
        policy = jax.export.deserialize(bytearray(path.read_bytes())).call
        observations = np.float32([[0.1, 0.2], [0.3, -0.4]])
        np.testing.assert_allclose(
            policy(observations), run.policy(best=True)(observations), atol=1e-5
        )
