"""Environments of one's own: by import path, as an object, registered with Brax."""

import dataclasses
import functools
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax import cli
from mbpo_jax.config import EnvConfig, file_name
from mbpo_jax.envs import brax, make_env
from mbpo_jax.envs.shapes import check_shapes
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.envs.termination import inverted_pendulum, rule_of
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import read_rows
from mbpo_jax.laboratory import commands
from mbpo_jax.presets import environment_preset, preset
from mbpo_jax.sweeps.sweep import sweep
from mbpo_jax.training.loop import make_program
from tests.choice import mostly_exhaustive

MODULE = """
    import jax
    import jax.numpy as jnp
    from mbpo_jax.envs.system import System, make_system_env

    def dynamics(key, state, action):
        x, v = state
        v = v + 0.05 * (2.0 * action[0] - x - 0.1 * v)
        return jnp.stack([x + 0.05 * v, v])

    SPRING = System(
        observation_size=2,
        action_size=1,
        dt=0.05,
        initial=lambda key: jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5),
        dynamics=dynamics,
        reward=lambda state, action, after: 1.0 - after[0] ** 2,
        observe=lambda state: state,
        terminated=lambda observation: jnp.abs(observation[..., 0]) > 0.4,
    )

    def make_env(config):
        return make_system_env("spring", SPRING, config.episode_length, config.action_repeat)

    def short(config):
        return make_system_env("spring", SPRING, 7)

    def nothing(config):
        return 5

    def without_settings():
        return make_env(None)
"""


@pytest.fixture
def module(monkeypatch) -> str:
    """Write a module of a name that no other test uses into the working directory."""
    name = f"springs_{abs(hash(Path.cwd()))}"
    Path(f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return name


def own(name: str, **settings) -> EnvConfig:
    return EnvConfig(name=name, backend="own", **settings)


def test_an_import_path_leads_to_the_environment(module):
    env = make_env(own(f"{module}:make_env", episode_length=9, action_repeat=2))
    assert env.spec[:5] == ("spring", 2, 1, 9, 2)
    assert env.terminated(jnp.array([0.5, 0.0]))


def test_what_is_wrong_with_an_import_path_is_named(module):
    for name, message in (
        ("no_such_module:make_env", "cannot import 'no_such_module'.*PYTHONPATH"),
        (f"{module}:make_envv", "has no function 'make_envv'; did you mean make_env"),
        (f"{module}.py:make_env", "names a file; write it without .py"),
        (":make_env", "is no import path"),
        (".a:b", "is no import path"),
        ("builtins:dict", "does not fit"),
        (f"{module}:nothing", "returned int where an mbpo_jax.types.Env is needed"),
        (f"{module}:short", "env.episode_length: it is 1000, .* made an environment with 7"),
        (f"{module}:without_settings", r"does not fit .* def without_settings\(config\):"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_env(own(name))
    with pytest.raises(ConfigError, match="does not run on 'spring'; use one of: own"):
        make_env(EnvConfig(name=f"{module}:make_env", backend="spring"))
    with pytest.raises(ConfigError, match="handed over as an object"):
        make_env(own("hopper"))


@pytest.mark.slow
def test_a_run_by_import_path_is_trained_resumed_evaluated_drawn_and_measured(module, capsys):
    name = f"{module}:make_env"
    command = ["train", name, "--preset", "debug", "--algorithm", "mve", "--run-dir", "run"]
    assert cli.main(command) == 0
    assert "done: return" in capsys.readouterr().out
    assert cli.main([*command]) == 0
    assert "finished already" in capsys.readouterr().out
    assert cli.main(["eval", "run", "--episodes", "3"]) == 0
    assert "over 3 episodes" in capsys.readouterr().out
    Path("run/episode.png").unlink()
    assert cli.main(["render", "run"]) == 0
    assert Path("run/episode.png").exists()
    problems = commands.load_problems(Path("run"), 0, 0, from_replay=False)
    assert problems.learned is not None
    assert problems.true is not None
    # Ended by its own rule, in the model as in reality.
    rows = read_rows(Path("run/metrics.jsonl"))
    assert [row["model/termination_agreement"] for row in rows] == [1.0] * len(rows)
    assert name in Path("run/config.yaml").read_text()


def spring() -> "System":
    return System(
        observation_size=3,
        action_size=1,
        dt=0.05,
        initial=lambda key: 0.1 * jax.random.normal(key, (3,)),
        dynamics=lambda key, s, a: jnp.stack([s[0] + 0.05 * s[1], s[1] + 0.25 * a[0], s[2]]),
        reward=lambda s, a, n: 1.0 - n[0] ** 2,
        observe=lambda s: s,
        terminated=lambda o: jnp.abs(o[..., 0]) > 1.0,
    )


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"observation_size": 4}, r"observation of reset has shape \(3,\) where \(4,\) is needed"),
        ({"reward": lambda s, a, n: a}, r"the reward has shape \(1,\) where \(\) is needed"),
        ({"reward": lambda s, a, n: a[0].item()}, r"step fails when .*\(test_own.py, line \d+\)"),
        ({"dynamics": lambda key, s, a: s[:2]}, r"dynamics makes \(2,\) of a state \(3,\)"),
        ({"observe": lambda s: s[:2]}, r"observation of step has shape \(2,\) where \(3,\)"),
        ({"dynamics": lambda key, s, a: (s, a)}, r"dynamics makes tuple of a state \(3,\)"),
        ({"terminated": lambda o: o > 1.0}, r"the discount has shape \(3,\) where \(\) is needed"),
        ({"terminated": lambda o: abs(o[0]) > 1.0}, r"write observation\[\.\.\., i\]"),
    ],
)
def test_a_shape_that_does_not_fit_is_named_before_anything_starts(mistake, message):
    env = make_system_env("mine", spring()._replace(**mistake), episode_length=60)
    with pytest.raises(ConfigError, match=message):
        mbpo_jax.train(env, "run", presets="debug")
    assert not Path("run").exists()


def test_a_step_leaves_the_simulators_state_as_it_was():
    env = make_system_env("mine", spring(), episode_length=60)

    def step(key, state, action):
        after, transition = env.step(key, state, action)
        return after._replace(simulator=after.simulator.astype(int)), transition

    message = r"state.simulator: \(3,\) float32 after reset, \(3,\) int32 after step"
    with pytest.raises(ConfigError, match=message):
        check_shapes(env._replace(step=step), "mine")
    with pytest.raises(ConfigError, match=r"step gives EnvState where \(EnvState, Transition\)"):
        check_shapes(env._replace(step=lambda *given: env.step(*given)[0]), "mine")


def test_a_rule_is_asked_for_rows_only_where_a_model_asks_it():
    """What model rollouts never ask may be a rule of one observation, or an answer for all."""
    one = make_system_env("mine", spring()._replace(terminated=lambda o: abs(o[0]) > 1.0), 60)
    check_shapes(one, "mine")
    with pytest.raises(ConfigError, match=r"\(4, 3\), where \(4,\) is needed; write observation"):
        rule_of(one, "known")
    never_ends = make_system_env("mine", spring(), 60)._replace(terminated=lambda o: False)
    assert rule_of(never_ends, "known") is never_ends.terminated


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_exhaustive(["table", "hopper"], "hopper".__eq__))
def test_whatever_it_is_called_its_own_rule_ends_model_rollouts(name):
    """One that is called as a built-in one does not get the rule of that one."""
    env = make_system_env(name, spring(), episode_length=60)
    config = preset("debug")
    program = make_program(env)
    state = jax.jit(functools.partial(program.init, config))(jax.random.key(0))
    state = jax.jit(program.collect)(config, state)
    _, metrics = jax.jit(program.step)(config, config.random_steps, state)
    assert float(metrics["model/termination_agreement"]) == 1.0


@pytest.mark.slow
def test_an_object_is_trained_and_looked_at_when_it_is_handed_over(capsys):
    """As nobody can make it from its name, which may be that of a built-in one."""
    env = make_system_env("hopper", spring(), episode_length=60)
    config = dataclasses.replace(preset("debug"), algorithm="sac")
    assert mbpo_jax.train(config, Path("run"), env=env).state == "finished"
    capsys.readouterr()
    run = mbpo_jax.load(Path("run"), env)
    assert len(run.play(2).returns) == 2
    assert run.render().path.exists()
    capsys.readouterr()
    assert cli.main(["eval", "run"]) == 2
    assert "handed over as an object" in capsys.readouterr().err
    saved = Path("run/config.yaml").read_text()
    assert "backend: own" in saved
    assert "episode_length: 60" in saved


@pytest.mark.slow
def test_own_environments_are_swept(module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{Path(__file__).parents[2]}")
    name = f"{module}:make_env"
    content = {"environments": [name], "algorithms": ["sac"], "seeds": 2, "presets": ["debug"]}
    assert sweep(content, Path("swept")) == "finished"
    (group,) = Path("swept/groups").iterdir()
    assert group.name.startswith(f"{module}-make_env-sac-")


def test_the_name_makes_a_directory_of_one_level(module):
    config = environment_preset("gym/Hopper-v5")
    assert file_name(config.env.name) == "gym-Hopper-v5"
    assert file_name(f"{module}:make_env") == f"{module}-make_env"


@pytest.mark.brax
class TestRegisteredWithBrax:
    """`brax.envs.register_environment` under a new name, and under that of a built-in one."""

    @pytest.fixture(autouse=True)
    def _registry(self, monkeypatch):
        from brax import envs
        from brax.envs.inverted_pendulum import InvertedPendulum

        class Mine(InvertedPendulum):
            __module__ = "mine"

        monkeypatch.setattr(envs, "_envs", dict(envs._envs))
        envs.register_environment("mine", Mine)
        envs.register_environment("hopper", Mine)

    @pytest.mark.parametrize("name", ["mine", "hopper"])
    def test_it_is_made_and_its_rule_is_not_guessed(self, name):
        env = make_env(EnvConfig(name=name))
        assert (env.spec.name, env.spec.observation_size, env.spec.action_size) == (name, 4, 1)
        assert env.terminated is None
        state = jax.jit(env.reset)(jax.random.key(0))
        state, made = jax.jit(env.step)(jax.random.key(1), state, jnp.ones(1))
        assert np.isfinite(made.next_observation).all()

    def test_a_rule_can_be_given(self):
        def rule(observation):
            return observation[..., 1] > 0.1

        assert brax.make_brax_env("mine", "generalized", 100, 1, rule).terminated is rule
        builtin = brax.make_brax_env("inverted_pendulum", "generalized", 100, 1, rule)
        assert builtin.terminated is inverted_pendulum

    def test_one_that_takes_no_backend_is_named(self):
        from brax import envs

        envs.register_environment("rigid", lambda: None)
        with pytest.raises(ConfigError, match=r"'rigid' cannot be made with backend"):
            make_env(EnvConfig(name="rigid"))
