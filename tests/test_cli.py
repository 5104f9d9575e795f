import dataclasses
import errno
import inspect
import re
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import jax
import pytest

from mbpo_jax import api, cli, config_io, exit_codes
from mbpo_jax.cli import doctor
from mbpo_jax.config import ALGORITHMS, Config, read_settings
from mbpo_jax.envs import ENVIRONMENTS
from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.laboratory import commands
from mbpo_jax.presets import PRESETS, preset
from mbpo_jax.training import devices, plan
from mbpo_jax.yaml_files import read_yaml

pytestmark = pytest.mark.smoke

OWN = "no preset is called {!r} (one of your own would be module:function); did you mean {}"


@pytest.fixture
def calls(monkeypatch) -> list:
    """Record how the verbs call what does the work, in whose place nothing is done."""
    calls = []

    def recorder(name, result):
        def record(*arguments, **options):
            calls.append((name, *arguments, *options.values()))
            return result

        return record

    ended = types.SimpleNamespace(state="interrupted")
    monkeypatch.setattr(api, "train", recorder("train", ended))
    monkeypatch.setattr(plan, "dry_run", recorder("dry_run", None))
    monkeypatch.setattr(devices, "use_compilation_cache", recorder("cache", None))
    enabled = jax.config.jax_enable_compilation_cache
    yield calls
    jax.config.update("jax_enable_compilation_cache", enabled)


def trained(calls):
    """Return the configuration and the directory with which `train` was called."""
    (call,) = [call for call in calls if call[0] == "train"]
    return call[1], call[2]


def refused(capsys, *argv: str) -> str:
    """Return the message to a command that is wrong."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_train_uses_the_preset_of_its_environment(calls):
    assert cli.main(["train", "humanoid"]) == 75
    assert trained(calls) == (preset("humanoid"), Path("runs/humanoid-mbpo-0"))


def test_layers_go_over_each_other_in_order(calls):
    Path("a.yaml").write_text("num_seeds: 2\nseed: 5\nsac: {tau: 0.1, gamma: 0.9}")
    Path("b.yaml").write_text("sac: {tau: 0.2}\neval_episodes: 7")
    options = ["--sac.gamma", "0.8", "--preset=debug", "--config", "a.yaml", "--config", "b.yaml"]
    assert cli.main(["train", "hopper", *options]) == 75
    config, run_dir = trained(calls)
    assert config.rollout.max_length == preset("debug").rollout.max_length  # over the environment's
    assert config.num_seeds == 2
    assert config.eval_episodes == 7  # a file over a preset
    assert (config.sac.tau, config.sac.gamma) == (0.2, 0.8)  # the last file; an option over both
    assert config.sac.target_entropy == preset("hopper").sac.target_entropy
    assert run_dir == Path("runs/hopper-mbpo-debug-5-6")


def test_options_reach_every_kind_of_field(calls):
    options = "--algorithm mba --seed 3 --sac.hidden-sizes 8 9 --stop-at-return None"
    options += " --sac.critic-layer-norm --fit.max-epochs 4 --run-dir here"
    assert cli.main(["train", "inverted_pendulum", *options.split()]) == 75
    config, run_dir = trained(calls)
    assert (config.algorithm, config.seed, config.stop_at_return) == ("mba", 3, None)
    assert (config.sac.hidden_sizes, config.sac.critic_layer_norm) == ((8, 9), True)
    assert config.fit.max_epochs == 4
    assert run_dir == Path("here")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("hopper", "hopper-mbpo-0"),
        ("hopper --algorithm dyna", "hopper-dyna-0"),
        ("hopper --model oracle", "hopper-mbpo-oracle-0"),
        ("hopper --env.backend spring --algorithm mve", "hopper-spring-mve-0"),
        ("pendulum --algorithm sac --seed 2", "pendulum-sac-2"),
    ],
)
def test_a_run_directory_is_named_after_what_is_often_varied(calls, command, expected):
    """The one backend of a system that is known in closed form goes without saying."""
    assert cli.main(["train", *command.split()]) == 75
    assert trained(calls)[1] == Path("runs", expected)


def test_a_run_may_begin_without_random_steps(calls):
    assert cli.main(["train", "hopper", "--algorithm", "sac", "--random-steps", "0"]) == 75
    assert trained(calls)[0].random_steps == 0


def test_train_passes_on_the_command_for_the_record(calls):
    cli.main(["train", "ant", "--seed", "1"])
    assert calls[-1][-1] == ["mbpo-jax", "train", "ant", "--seed", "1"]


def test_lists_that_are_given_again_add_up(calls, monkeypatch):
    cli.main(["train", "ant", "--log", "tensorboard,wandb", "--log", "mine:make_tracker"])
    assert ("tensorboard", "wandb", "mine:make_tracker") in calls[-1]
    studied = []
    monkeypatch.setattr(
        commands, "measure_problem", lambda _, given, config, *rest: studied.append(config) or 0
    )
    words = "variance --problem lq --estimators rp --horizons 1,2 --estimators lr,es --horizons 5"
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", lambda *_: None)  # nothing is computed in doubles
        assert cli.main(words.split()) == 0
    (config,) = studied
    assert (config.estimators, config.horizons) == (("rp", "lr", "es"), (1, 2, 5))
    assert config.batch_sizes == (16,)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_compilation_cache_can_be_left_out(calls, enabled):
    cli.main(["train", "ant", "--compilation-cache" if enabled else "--no-compilation-cache"])
    assert ("cache" in [name for name, *_ in calls]) == enabled
    assert jax.config.jax_enable_compilation_cache == enabled


def test_an_option_that_the_algorithm_never_reads_is_named(calls, capsys):
    Path("a.yaml").write_text("algorithm: sac\nfit: {patience: 9}")
    command = ["train", "pendulum", "--preset", "debug", "--config", "a.yaml"]
    assert cli.main([*command, "--expansion.horizon", "5", "--dry-run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "fit.patience: sac does not read it" in lines[0]
    assert "expansion.horizon: sac does not read it" in lines[1]
    assert lines[1].endswith("mve, steve, svg, dhmbpo")
    assert not calls
    # What a preset says is for whichever algorithm needs it.
    assert cli.main(["train", "pendulum", "--algorithm", "sac", "--dry-run"]) == 0


def test_the_whole_configuration_of_a_run_can_be_given_for_another_algorithm(calls):
    settings = dataclasses.replace(preset("pendulum", "debug"), algorithm="sac")
    Path("whole.yaml").write_text(config_io.dump_yaml(settings))
    assert cli.main(["train", "pendulum", "--config", "whole.yaml", "--dry-run"]) == 0
    command = ["train", "pendulum", "--config", "whole.yaml", "--algorithm", "retrace"]
    assert cli.main([*command, "--dry-run"]) == 0
    assert cli.main([*command, "--rollout.max-length", "9"]) == 2


def test_dry_run_is_passed_what_would_be_trained(calls):
    assert cli.main(["train", "ant", "--seed", "4", "--dry-run"]) == 0
    verb, shown, run_dir, usual, everything = calls[-1]
    assert (verb, shown.seed, run_dir) == ("dry_run", 4, Path("runs/ant-mbpo-4"))
    assert (usual, everything) == (preset("ant"), False)
    cli.main(["train", "ant", "--seed", "4"])
    assert trained(calls) == (shown, run_dir)


@pytest.mark.parametrize(
    ("command", "messages"),
    [
        (
            "train hoper",
            ["no environment is called 'hoper' (", "module:function); did you mean hopper"],
        ),
        (
            "train hopper --preset debgu",
            [OWN.format("debgu", "debug?")],
        ),
        ("train hopper --num-seed 2 --sac.tua 1", ["--num-seeds", "--sac.tau"]),
        ("train hopper --sac.tau -1 --seed -1", ["sac.tau: -1.0", "seed: -1", "command line: "]),
        ("train hopper --rollout.max-length 0", ["rollout.max_length: 0"]),
        ("train hopper --eval-every 7", ["eval_every: 7 is no multiple of steps_per_fit (250)"]),
        ("train hopper --seed x", ["--seed"]),
        ("train hopper --figure-format gif", ["--figure-format", "pdf", "svg"]),
        ("report sweeps/a --figure-format pdf --serve", ["--figure-format goes without --serve"]),
        ("train hopper --algorithm mbop", ["algorithm: 'mbop' is not known", "mbpo"]),
        ("train hopper --random-steps 0", ["random_steps: 0; a model needs at least 2"]),
        ("train hopper --preset", ["--preset"]),
        ("train hopper --all", ["--all belongs to --dry-run"]),
        ("train hopper --preset ant", ["'hopper'", "'ant'", "name the same environment"]),
        ("train hopper --config absent.yaml", ["absent.yaml: cannot be read"]),
        ("train --seed 3 hopper", ["the environment comes first: mbpo-jax train ENV --seed"]),
        ("train", ["ENV"]),
        ("trian hopper", ["trian", "train"]),
        ("", ["train", "doctor"]),
        ("eval x --episodes 0", ["--episodes: 0 is too small"]),
        (
            "presets hoper",
            [OWN.format("hoper", "hopper")],
        ),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(calls, capsys, command, messages):
    error = refused(capsys, *command.split())
    assert [message for message in messages if message not in error] == []
    assert calls == []


def test_three_mistakes_in_a_file_get_three_lines(calls, capsys):
    Path("bad.yaml").write_text("bogus_field: 1\nnum_seeds: [3]\nsac: {tau: -1}")
    lines = refused(capsys, "train", "hopper", "--config", "bad.yaml").splitlines()
    assert len(lines) == 3
    assert all(line.startswith("mbpo-jax: bad.yaml: ") for line in lines)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConfigError("one problem", "another"), "mbpo-jax: one problem\nmbpo-jax: another\n"),
        (PermissionError(13, "Permission denied", "/x"), "mbpo-jax: /x: Permission denied\n"),
        (
            DiskError("cannot write /x: No space left on device", errno.ENOSPC),
            "mbpo-jax: cannot write /x: No space left on device; free some space there or choose "
            "another --run-dir (a copy of this one goes on there), and give the same command again",
        ),
        (
            DiskError("cannot write /x: Read-only file system", errno.EROFS),
            "mbpo-jax: cannot write /x: Read-only file system; permit writing there or choose ",
        ),
    ],
)
def test_errors_of_the_driver_become_messages(monkeypatch, calls, capsys, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(api, "train", fail)
    assert refused(capsys, "train", "hopper").startswith(message)


def test_ctrl_c_before_training_ends_quietly(monkeypatch, calls, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "train", interrupt)
    assert cli.main(["train", "hopper"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", ["presets hopper", "train --help", "presets nothing"])
def test_output_that_finds_no_room_is_one_message(words):
    """Whatever is still to be written when Python ends."""
    full = f"{sys.executable} -m mbpo_jax {words} > /dev/full; exit $?"
    ended = subprocess.run(["bash", "-c", full], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    message = "no preset is called" if "nothing" in words else "cannot write the output: No space"
    assert line.startswith(f"mbpo-jax: {message}")


def test_a_reader_that_leaves_early_gets_no_error_message():
    command = f"{sys.executable} -m mbpo_jax presets hopper | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert ended.stdout in ("0\n", f"{exit_codes.BROKEN_PIPE}\n")  # it may have been faster


def helped(capsys, monkeypatch, *argv: str) -> str:
    """Return what a terminal of 80 columns shows of a help."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_overview_has_a_line_or_two_for_each_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(1 + len(line) // 81 for line in lines) <= 40
    for name, verb in cli.VERBS.items():
        (line,) = [line for line in lines if re.search(rf"\W {name} +\w", line)]
        assert str(inspect.getdoc(verb)).split()[0] in line


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_help_has_the_settings_that_the_algorithm_reads_on_two_pages(
    capsys, monkeypatch, algorithm
):
    text = helped(capsys, monkeypatch, "train", "hopper", "--algorithm", algorithm, "--help")
    assert text.count("\n") <= 150
    options = re.findall(r"^  --(\S+)", text, re.MULTILINE)
    told = [option.replace("[no-]", "").replace("-", "_") for option in options]
    config = dataclasses.replace(preset("hopper", algorithm=algorithm), algorithm=algorithm)
    assert [path for path in told if path in config_io.defaults()] == [
        path for path in read_settings(config) if path != "env.name"
    ]
    assert {"dry_run", "run_dir"} <= set(told)


def test_help_leaves_out_what_is_not_read_as_things_are_set(capsys, monkeypatch):
    text = helped(capsys, monkeypatch, "train", "pendulum", "--preset", "fast", "--help")
    assert "--fit.num-steps" in text
    assert "--fit.patience" not in text
    assert "--rollout.threshold-scale" not in text
    assert "--tracking" not in text
    Path("track.yaml").write_text("track_gradients: 2")
    text = helped(capsys, monkeypatch, "train", "pendulum", "--config", "track.yaml", "--help")
    assert "--tracking.estimators" in text


def test_help_shows_the_values_of_the_environment(capsys, monkeypatch):
    text = helped(capsys, monkeypatch, "train", "halfcheetah", "--help")
    assert re.search(r"--sac.utd-ratio +40 +Gradient updates per environment", text)
    assert "Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905)" in text
    assert "--env.name" not in text  # it is the first argument


def test_help_needs_no_environment(capsys, monkeypatch):
    text = helped(capsys, monkeypatch, "train", "--algorithm", "mve", "--help")
    assert "--expansion.td-k" in text.replace("[no-]", "")
    assert "--rollout.max-length" not in text
    assert helped(capsys, monkeypatch, "train", "-h") == helped(
        capsys, monkeypatch, "train", "--help"
    )


def test_help_tells_what_every_algorithm_does(capsys, monkeypatch):
    text = helped(capsys, monkeypatch, "train", "hopper", "--help")
    for name, record in ALGORITHMS.items():
        assert re.search(rf"^  {name} +{re.escape(record.summary[:40])}", text, re.MULTILINE)


def test_all_of_the_help_has_every_setting_and_source(capsys):
    assert cli.main(["train", "hopper", "--help-all"]) == 0
    text = "".join(capsys.readouterr().out.replace("│", " ").split())
    for name, record in ALGORITHMS.items():
        assert "".join(f"- {name}: {record.summary} ({record.source})".split()) in text
    for path in config_io.defaults():
        assert path == "env.name" or f"--{path.replace('_', '-')}" in text, path
    assert "Gradientupdatesperenvironmentstep(G).(default:20)" in text


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        ("train pendulum --sac.learningrate 3", "train"),
        ("variance --problme lq", "variance"),
        ("eval runs/x --episode 3", "eval"),
        ("sweep smoke --runs-pr-group 3", "sweep"),
        ("sweep", "sweep"),
    ],
)
def test_a_wrong_option_points_to_the_help_of_its_own_verb(capsys, command, verb):
    error = refused(capsys, *command.split())
    assert f"mbpo-jax {verb} --help" in error
    assert error.count("--help") == 1


def test_envs_lists_every_environment_with_sizes_and_backends(capsys):
    assert cli.main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert set(rows) - {"environment"} == set(ENVIRONMENTS)
    suites = [line for line in lines if line and not line.startswith("  ")]
    assert [line.split()[0] for line in suites] == [
        *("Gymnasium's", "DeepMind", "Brax,", "Systems", "Your")
    ]
    assert metadata.version("gymnasium") in suites[0]
    assert rows["humanoid"].split(maxsplit=3)[1:] == [
        "45",
        "17",
        "generalized, positional, spring, mjx",
    ]


def test_presets_lists_all_and_prints_what_a_stack_makes(capsys):
    assert cli.main(["presets"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PRESETS)
    from mbpo_jax import config_io

    assert cli.main(["presets", "ant", "debug"]) == 0
    printed = capsys.readouterr().out
    assert "#   env.name: inverted_pendulum -> ant" in printed.splitlines()
    Path("stack.yaml").write_text(printed)
    stack = read_yaml(Path("stack.yaml"))
    assert config_io.apply(Config(), stack, "stack") == preset("ant", "debug")


def test_doctor_is_content_with_this_machine(monkeypatch, capsys):
    monkeypatch.setattr("mbpo_jax.reports.animation.find_gl_backend", lambda: "egl")
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"jax: {jax.__version__}" in out
    assert "OpenGL: egl" in out
    assert "ready to train" in out


def test_doctor_tells_a_lack_of_comfort_from_a_lack_of_parts(monkeypatch, capsys):
    monkeypatch.setattr("mbpo_jax.reports.animation.find_gl_backend", lambda: None)
    assert cli.main(["doctor"]) == 0
    assert "warning: OpenGL: no rollout.webp without it; install" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "PACKAGES", ("jax", "no-such-package"))
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "error: no-such-package: install it" in out
    assert "ready to train" not in out


def test_doctor_reports_where_the_cache_is_and_its_size(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "default_cache_directory", lambda: tmp_path / "cache")
    (absent,) = doctor.compilation_cache()
    assert "made by the first run" in absent.value
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "program").write_bytes(bytes(3 * 2**20))
    (present,) = doctor.compilation_cache()
    assert present.value == f"{tmp_path / 'cache'} (3.00 MiB)"
    assert present.advice == ""


def test_help_and_the_package_itself_load_neither_jax_nor_pydantic():
    program = (
        "import sys, mbpo_jax; from mbpo_jax import cli; code = cli.main(['train', '--help']); "
        "heavy = {'jax', 'numpy', 'brax', 'pydantic', 'yaml'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: mbpo-jax train" in result.stdout


def test_the_package_offers_its_public_names():
    import mbpo_jax

    assert mbpo_jax.preset("ant") == preset("ant")
    assert mbpo_jax.train is api.train
    assert set(mbpo_jax.__all__) <= set(dir(mbpo_jax))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mbpo_jax.trian  # noqa: B018


def test_platform_without_a_device_is_one_message_with_the_way_out(monkeypatch, capsys):
    def fail():
        raise AssertionError  # as JAX does where a plugin finds no device

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(devices.jax, "devices", fail)
    assert cli.main(["train", "inverted_pendulum", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "cannot start cuda" in error
    assert "unset JAX_PLATFORMS" in error
    assert cli.main(["doctor"]) == 1
    assert "unset JAX_PLATFORMS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "--address belongs to --executor ray"),
        (["--executor", "ray", "--minutes", "3"], "--minutes belongs to --executor slurm"),
        (["--gpus-per-task", "1"], "--gpus-per-task belongs to --executor ray or slurm"),
        (["--executor", "slurm", "--minutes", "0"], "--minutes: 0 is too small"),
        (["--runs-per-group", "0"], "--runs-per-group: 0 is too small; use a value >= 1"),
        (["--group", "x", "--executor", "ray"], "--group takes a sweep's directory and no other"),
        (["--group", "x"], "has no group 'x'"),
    ],
)
def test_options_of_a_sweep_that_would_do_nothing_are_refused(calls, capsys, options, message):
    assert message in refused(capsys, "sweep", "smoke", *options)


@pytest.mark.parametrize("by", ["option", "file"])
def test_who_asks_for_an_algorithm_gets_its_numbers_and_what_else_was_asked_for(
    by, calls, tmp_path
):
    path = tmp_path / "asked.yaml"
    path.write_text("algorithm: dhmbpo\nsac: {num_critics: 3}\n")
    asked = {
        "option": ["--algorithm", "dhmbpo", "--sac.num-critics", "3"],
        "file": ["--config", str(path)],
    }
    assert cli.main(["train", "pendulum", *asked[by], "--dry-run"]) == 0
    ((_, config, *_),) = [call for call in calls if call[0] == "dry_run"]
    assert config.algorithm == "dhmbpo"
    assert (config.sac.num_critics, config.sac.num_target_critics) == (3, 2)
    assert config.expansion.horizon == 5
