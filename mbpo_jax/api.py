"""What Python code needs of the whole: train, and open what was trained.

result = train("pendulum", algorithm="mve", seeds=4, expansion={"horizon": 3})
result.evals
policy = result.policy(seed=0)
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbpo_jax import config_io
from mbpo_jax.config import Config, refuse_unread
from mbpo_jax.envs.own import described
from mbpo_jax.envs.shapes import check_shapes
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row
from mbpo_jax.presets import environment_preset, preset
from mbpo_jax.reports.figures import formats_of
from mbpo_jax.run import Run, open_run
from mbpo_jax.training import devices, driver, run_directory
from mbpo_jax.training.beginning import Beginning
from mbpo_jax.training.group import group_of
from mbpo_jax.training.trackers import tracker
from mbpo_jax.types import Env


def train(
    environment: str | Config | Env,
    run_dir: str | Path | None = None,
    *,
    presets: str | Sequence[str] = (),
    seeds: int | None = None,
    env: Env | Mapping[str, Any] | None = None,
    init_from: str | Path | Run | None = None,
    on_evaluation: Callable[[list[Row]], None] | None = None,
    figure_format: str | Collection[str] = (),
    log: str | Sequence[str] = tracker.DEFAULT,
    command: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train, or go on with what was begun: the same call goes on where it stopped.

    What is trained is a run directory, as the command line writes it. Ctrl-C, once, saves it and
    returns.

    Args:
      environment: name of an environment, whose preset the settings are put over; or a whole
        configuration; or an environment of one's own.
      run_dir: for everything that is written; below runs/, named after the run, if None.
      presets: further ones, or one, to put over the environment's own.
      seeds: how many, in a row from `seed`, trained side by side.
      env: an environment of one's own for a configuration, in the place of the one it names; or
        settings of the group of that name.
      init_from: run, or its directory, with whose networks and model a new run begins: one for all
        seeds, or as many as there are. A run that is resumed goes on with its own. One whose
        environment was an object has to be opened with it: `load(run_dir, env)`.
      on_evaluation: called after each evaluation with a row for each seed: `env_steps`, `run`,
        `seed`, `return_mean`, ... and the newest metrics, of which there are none at the first
        evaluation, before training. What it raises ends the training.
      figure_format: "pdf" or "svg", or both, in which figures are written besides PNG.
      log: the trackers that are told of the runs while they train: "tensorboard", "wandb",
        "trackio", or one's own, `module:function`. A run that is resumed goes on in them.
      command: to be noted in environment.json.
      **settings: by name, groups as dictionaries: `total_env_steps=5000, sac={"gamma": 0.98}`.

    Returns:
      The runs; `state` says whether they are "finished", "interrupted" or "diverged".

    Raises:
      ConfigError: a name or a setting is wrong, or is never read by this algorithm; the library of
        a tracker is missing; the directory holds other runs; or the device has too little memory.
        Nothing was changed then.
      DiskError: something cannot be written; what was saved before is as it was.
      CheckpointError: no checkpoint can be gone on from.
    """
    presets = (presets,) if isinstance(presets, str) else presets
    formats = formats_of(figure_format)
    log = tracker.chosen(log)
    if isinstance(env, Mapping):
        settings, env = {"env": dict(env), **settings}, None
    config, env = _asked_for(environment, env, presets, seeds, settings)
    path = run_directory.default(config, presets) if run_dir is None else Path(run_dir)
    group = group_of(config)
    devices.use_host_devices(len(group.runs))
    begin = None
    if init_from is not None and run_directory.begins(path, _path_of(init_from)):
        source = init_from if isinstance(init_from, Run) else load(init_from)
        begin = Beginning(str(source.path.resolve()), source.env_steps(), source.learned())
    driver.train_group(
        group,
        path,
        command,
        env,
        init_from=begin,
        on_evaluation=on_evaluation,
        figure_format=formats,
        log=log,
    )
    return load(path, env)


def load(run_dir: str | Path, env: Env | None = None) -> Run:
    """Open a run directory, be it finished or still being trained.

    Args:
      run_dir: that `train` or the command line wrote.
      env: its environment, if that was handed over as an object.

    Raises:
      ConfigError: it is no run directory.
    """
    return open_run(Path(run_dir), env)


def _path_of(source: str | Path | Run) -> Path:
    return source.path if isinstance(source, Run) else Path(source)


def _asked_for(
    environment: str | Config | Env,
    env: Env | None,
    presets: Sequence[str],
    seeds: int | None,
    settings: dict[str, Any],
) -> tuple[Config, Env | None]:
    """Return the configuration that is asked for, and the environment if it is given."""
    algorithm = str(settings.get("algorithm", ""))
    if isinstance(environment, Env):
        if env is not None:
            raise ConfigError("env: an environment is given already; leave one of them out")
        environment, env = preset(*presets, algorithm=algorithm), environment
    elif isinstance(environment, str):
        environment = environment_preset(environment, *presets, algorithm=algorithm)
    elif presets:
        raise ConfigError("presets: a whole configuration has them in it; leave them out")
    base = environment
    if env is not None:
        check_shapes(env, env.spec.name)
        base = dataclasses.replace(base, env=described(base.env, env))
    if seeds is not None and "num_seeds" in settings:
        raise ConfigError("seeds: it is num_seeds by another name; leave one of them out")
    if seeds is not None:
        settings = {"num_seeds": seeds, **settings}
    if not settings:
        return base, env
    config = config_io.apply(base, settings, "train")
    refuse_unread(config, config_io.paths(settings))
    return config, env
