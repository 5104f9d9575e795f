"""What a run will take, told before it starts: calls, sizes, memory."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from mbpo_jax import config_io, replay
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import MEMORY_FIELDS, Config, algorithm_record, read_settings
from mbpo_jax.errors import ConfigError, in_units
from mbpo_jax.models.rows import BLOCK_ROWS
from mbpo_jax.training import devices, pace, run_directory
from mbpo_jax.training.group import group_of, make_group
from mbpo_jax.training.layout import Setup, set_up
from mbpo_jax.training.runs_axis import padded_size, run_mesh
from mbpo_jax.training.state import TrainState, learned
from mbpo_jax.types import Agent

SPARED = 0.1
"""Share of a device's memory that is left free where it decides how many runs make a group."""


FEW = 5
"""Arrays that are named."""
MOST_CHANGES = 25
"""Settings that are named as changed."""


class TooLarge(ConfigError):
    """Runs that the memory which is free now does not hold."""


class Plan(NamedTuple):
    """What the runs of a configuration hold in memory.

    Attributes:
      state: shapes of all runs' state.
      bytes_per_device: an estimate of all that a device has to hold.
      num_devices: devices that share the runs.
    """

    state: TrainState
    bytes_per_device: int
    num_devices: int


class Updates(NamedTuple):
    """The agent's gradient updates, of one run.

    Attributes:
      per_fit: those that follow a fit.
      of_steps: those of the environment steps between two fits.
      calls_to_catch_up: how many calls make as many as the latter, for the random steps, after one
        fit; 0 if none are made.
    """

    per_fit: int
    of_steps: int
    calls_to_catch_up: int

    def total(self, num_chunks: int) -> int:
        """Return those of a whole run of so many calls of the compiled step."""
        fits = num_chunks + (self.calls_to_catch_up > 0)
        return fits * self.per_fit + (num_chunks + self.calls_to_catch_up) * self.of_steps


def planned_updates(setup: Setup) -> Updates:
    """Return what updates a run makes."""
    config = setup.group.config
    agent = make_algorithm(setup.env, config).agent
    calls = -(-config.random_steps // config.steps_per_fit) if agent.catches_up else 0
    return Updates(agent.critic_updates, config.steps_per_fit * agent.updates_per_step, calls)


def estimate_bytes(agent: Agent, config: Config, run: TrainState, runs_per_device: int) -> int:
    """Estimate the memory that one device needs.

    Besides the state of its runs, a device holds what they had learned when they were evaluated
    best; what a fit needs: scaled copies of the replay buffer, the rows of each member, and a batch
    for each; the batches of the updates after an environment step; and what a model rollout needs:
    some copies of all its transitions, and the activations of all rows, on a CPU of a block of
    them. There, the loop over several runs copies the state of each in and out.

    Args:
      agent: of the runs; how many updates it makes, of which batches.
      config: sizes.
      run: state of one run, or its shapes.
      runs_per_device: runs that share a device.
    """
    on_cpu = jax.default_backend() == "cpu"
    state = devices.tree_bytes(run)
    best = devices.tree_bytes(learned(run)) * runs_per_device
    fit = rollouts = 0
    capacity = replay.capacity(run.replay)
    row_bytes = devices.tree_bytes(run.replay.data) // capacity
    sac, ensemble = config.sac, config.ensemble
    # A row leaves some four float32 in each unit of a network that learns from it.
    learning = 4 * 4 * sac.num_critics * sum(sac.hidden_sizes)
    updates = agent.batch_size * ((agent.updates_per_step + 2) * row_bytes + learning)
    if config.learns_model:
        members = ensemble.num_members
        learning = 4 * 4 * sum(ensemble.hidden_sizes)
        fit = capacity * 2 * (row_bytes + 4 * members)
        fit += config.fit.batch_size * members * (row_bytes + learning)
    if algorithm_record(config.algorithm).branches:
        rollout = config.rollout
        rows = rollout.rollouts_per_step * config.steps_per_fit // rollout.refreshes_per_fit
        at_once = min(rows, BLOCK_ROWS) if on_cpu else rows
        widest = max((1, *ensemble.hidden_sizes, *sac.hidden_sizes))
        rollouts = 3 * rows * row_bytes + 4 * 4 * at_once * widest
        if rollout.truncation != "none":  # what each member predicts, and what is made of it
            outputs = 1 + run.replay.data.observation.shape[-1]
            rollouts += 4 * 4 * rows * ensemble.num_elites * outputs
    if not on_cpu:  # `vmap`: the state is donated, all runs roll out at once
        return (state + updates + fit + rollouts) * runs_per_device + best
    copies = 1 if runs_per_device == 1 else 2 * runs_per_device + 1
    return state * copies + best + updates + fit + rollouts


def plan_memory(setup: Setup) -> Plan:
    """Plan the memory of all runs."""
    group, mesh, state = setup.group, setup.mesh, setup.shapes
    share = padded_size(len(group.runs), mesh) // mesh.size
    agent = make_algorithm(setup.env, group.config).agent
    needed = estimate_bytes(agent, group.config, _one_run(state), share)
    return Plan(state, needed, mesh.size)


def _one_run(state: TrainState) -> TrainState:
    """Return the shapes of one run's state, given those of all."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)


def check_fits(setup: Setup) -> Plan:
    """Plan the memory of all runs, and check that they fit.

    Raises:
      TooLarge: they do not.
      ConfigError: as `train`.
    """
    plan, group = plan_memory(setup), setup.group
    if group.config.track_gradients:
        # An estimator that lacks what it needs says so as it is traced.
        arguments = group.runs[0], jax.random.key(0), _one_run(plan.state)
        jax.eval_shape(setup.program.measure, *arguments)
    available = devices.available_bytes(plan.num_devices)
    if available is not None and plan.bytes_per_device > available:
        runs = len(group.runs)
        raise TooLarge(
            f"each device needs about {in_units(plan.bytes_per_device)}, but has "
            f"{in_units(available)}: "
            f"lower {f'num_seeds ({runs}), ' if runs > 1 else ''}{MEMORY_FIELDS}"
        )
    return plan


def most_runs(setup: Setup) -> int:
    """Return how many of the runs that are set up a device's memory holds at once, at least one.

    Raises:
      ConfigError: not even one fits.
    """
    group, env, config = setup.group, setup.env, setup.group.config
    one_run = _one_run(setup.shapes)
    agent = make_algorithm(env, config).agent
    for number in range(len(group.runs), 1, -1):
        mesh = run_mesh(number)
        available = devices.available_bytes(mesh.size)
        needed = estimate_bytes(agent, config, one_run, padded_size(number, mesh) // mesh.size)
        if available is None or needed <= (1.0 - SPARED) * available:
            return number
    check_fits(set_up(make_group(group.runs[:1]), env))
    return 1


def describe_memory(plan: Plan) -> str:
    """Say how many devices are used and what each has to hold."""
    each = " each" if plan.num_devices > 1 else ""
    devices_used = f"{plan.num_devices} device{'s' if plan.num_devices > 1 else ''}"
    return f"about {in_units(plan.bytes_per_device)}{each} on {devices_used}"


def dry_run(config: Config, run_dir: Path, usual: Config, everything: bool = False) -> None:
    """Print what `train` would do: what is changed, runs, sizes, memory, time; train nothing.

    Args:
      config: what would be trained.
      run_dir: where.
      usual: what the presets make, against which changes are told.
      everything: print all settings that are read, as config.yaml has them, and all arrays.

    Raises:
      ConfigError: as `train`.
    """
    devices.use_host_devices(config.num_seeds)
    group = group_of(config)
    setup = set_up(group)
    plan, spec = check_fits(setup), setup.env.spec
    seeds = f"seed {group.seeds[0]}"
    if len(group.seeds) > 1:
        seeds = f"seeds {group.seeds[0]} to {group.seeds[-1]}, in one program"
    made = planned_updates(setup)
    calls = config.num_chunks + made.calls_to_catch_up
    rows = {
        "run directory": f"{run_dir} ({run_directory.outlook(run_dir, group)})",
        "devices": ", ".join(devices.describe_devices()),
        "runs": f"{config.num_seeds} of {config.title} ({seeds})",
        "environment": f"{spec.name}: observation {spec.observation_size}, action "
        f"{spec.action_size}, {spec.dt:g} s an action",
        "steps of a run": f"{config.total_env_steps:,}, {config.random_steps:,} of them random",
        "calls": f"{calls:,} of the compiled step, of {config.steps_per_fit:,} steps each",
        "updates": f"{made.total(config.num_chunks):,} of the agent, a run",
        "memory": describe_memory(plan),
        "time": pace.expected_time(group, pace.read_paces([run_dir, *run_dir.parent.glob("*/")])),
    }
    for name, text in rows.items():
        print(f"{name:>14}: {text}")
    if everything:
        print(f"\nsettings, as {run_directory.CONFIG} would have them:\n")
        print(config_io.dump_yaml(config))
    else:
        read = read_settings(config)
        changes = config_io.differences(usual, config)
        _print_changes({path: pair for path, pair in changes.items() if path in read})
    arrays = largest_arrays(plan.state)
    print("arrays of all runs, by size:" if everything else "\nlargest arrays, of all runs:")
    for path, shape in arrays if everything else arrays[:FEW]:
        print(f"{in_units(devices.tree_bytes(shape)):>14}  {shape.shape}  {path}")
    if not everything:
        print("\n--dry-run --all has all settings and arrays")


def _print_changes(changes: dict[str, tuple[Any, Any]]) -> None:
    """Print what differs from the presets, but no endless list of it."""
    print("\nsettings that differ from the presets:" if changes else "\nsettings: of the presets")
    lines = [f"  {path}: {was} -> {now}" for path, (was, now) in changes.items()]
    for line in lines[:MOST_CHANGES]:
        print(line)
    if len(lines) > MOST_CHANGES:
        print(f"  and {len(lines) - MOST_CHANGES} more")


def largest_arrays(shapes: TrainState) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    """Return names and shapes of the arrays of a state, the largest first."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    leaves.sort(key=lambda leaf: -devices.tree_bytes(leaf[1]))
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
