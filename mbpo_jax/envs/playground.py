"""DeepMind Control's tasks, as MuJoCo Playground has them, behind the project's `Env`.

MJX steps them on the device, in JAX. Playground's `State` carries 1 to 31 kB of what a physics
step computes anew from joint positions and velocities, so none of that is kept: what a step reads
of the past is a `Row` of 3 to 82 numbers, and the rest is made for it at each step.

Playground is an optional package: only what makes an environment imports it.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.envs import observed
from mbpo_jax.envs.termination import never
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvSpec, EnvState, Picture, Transition

BACKENDS = ("mjx",)
PREFIX = "dmc/"


class TaskInfo(NamedTuple):
    """What is known of a task without loading it.

    Attributes:
      observation_size: of what is observed.
      action_size: size of an action.
      differentiable: whether JAX has a reverse derivative of a step that can be relied upon: where
        there are no contacts and joint limits. Elsewhere MJX's solver looks for their forces by a
        loop of unknown length, which has none; or by one iteration, whose derivative is now and
        then not a number, where no force is needed and the search begins next to the solution.
    """

    observation_size: int
    action_size: int
    differentiable: bool


TASKS = {
    "AcrobotSwingup": TaskInfo(6, 1, True),
    "AcrobotSwingupSparse": TaskInfo(6, 1, True),
    "BallInCup": TaskInfo(8, 2, False),
    "CartpoleBalance": TaskInfo(5, 1, False),
    "CartpoleBalanceSparse": TaskInfo(5, 1, False),
    "CartpoleSwingup": TaskInfo(5, 1, False),
    "CartpoleSwingupSparse": TaskInfo(5, 1, False),
    "CheetahRun": TaskInfo(17, 6, False),
    "FingerSpin": TaskInfo(9, 2, False),
    "FingerTurnEasy": TaskInfo(12, 2, False),
    "FingerTurnHard": TaskInfo(12, 2, False),
    "FishSwim": TaskInfo(24, 5, True),
    "HopperHop": TaskInfo(15, 4, False),
    "HopperStand": TaskInfo(15, 4, False),
    "HumanoidRun": TaskInfo(67, 21, False),
    "HumanoidStand": TaskInfo(67, 21, False),
    "HumanoidWalk": TaskInfo(67, 21, False),
    "PendulumSwingup": TaskInfo(3, 1, True),
    "PointMass": TaskInfo(4, 2, False),
    "ReacherEasy": TaskInfo(6, 2, False),
    "ReacherHard": TaskInfo(6, 2, False),
    "SwimmerSwimmer6": TaskInfo(25, 5, False),
    "WalkerRun": TaskInfo(24, 6, False),
    "WalkerStand": TaskInfo(24, 6, False),
    "WalkerWalk": TaskInfo(24, 6, False),
}


class Row(NamedTuple):
    """What a step reads of the past, under the names that MuJoCo has for it.

    Attributes:
      qpos: `[Q]`, generalized positions, in metres, radians or quaternions.
      qvel: `[V]`, generalized velocities.
      qacc_warmstart: `[V]`, accelerations from which the solver for contacts starts.
      mocap_pos: `[M, 3]` in metres, where an episode has its target; M is 0 or 1.
    """

    qpos: jax.Array
    qvel: jax.Array
    qacc_warmstart: jax.Array
    mocap_pos: jax.Array


def load(task: str) -> Any:
    """Build Playground's own environment object, stepped by MJX's implementation in JAX.

    Raises:
      ConfigError: Playground is not installed.
    """
    try:
        from mujoco_playground import dm_control_suite  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "mujoco_playground":
            raise
        raise ConfigError(
            f"env.name: {PREFIX}{task} needs MuJoCo Playground, which is not installed; in the "
            "project's folder: pip install -e '.[dmc]'"
        ) from error
    # What Playground would take by default, Warp, has no derivatives and is not deterministic.
    return dm_control_suite.load(task, config_overrides={"impl": "jax"})


def names_of(task: str, model: Any) -> tuple[str, ...]:
    """Name what a task observes: `[O]`.

    Args:
      task: a key of `TASKS`.
      model: its `mujoco.MjModel`.
    """
    positions, velocities = observed.joint_names(model)
    # The world is no body, and a target is none whose frame or speed is observed.
    bodies = [model.body(i).name.replace("_", " ") for i in range(1, model.nbody)]
    bodies = [body for body in bodies if body != "target"]
    family = re.findall("[A-Z][a-z]+", task)[0]
    if family == "Acrobot":
        return (*(f"sin {b}" for b in bodies), *(f"cos {b}" for b in bodies), *velocities)
    if family == "Cartpole":
        poles = bodies[1:]
        turned = (*(f"cos {b}" for b in poles), *(f"sin {b}" for b in poles))
        return (positions[0], *turned, *velocities)
    if family == "Finger":
        tip = ("proximal", "distal", "tip - spinner x", "tip - spinner z")
        target = ("target - spinner x", "target - spinner z", "distance to target")
        return (
            *(*tip, *velocities, "touch top", "touch bottom"),
            *(target if task.startswith("FingerTurn") else ()),
        )
    if family == "Fish":
        target = [f"target - mouth {axis}" for axis in observed.AXES]
        return ("torso upright", *positions[7:], *target, *velocities)
    if family == "Hopper":
        return (*positions[1:], *velocities, "touch toe", "touch heel")
    if family == "Humanoid":
        limbs = ("left hand", "left foot", "right hand", "right foot")
        return (
            *(*positions[7:], "head z"),
            *(f"{limb} {axis}" for limb in limbs for axis in observed.AXES),
            *(f"torso upright {axis}" for axis in observed.AXES),
            *(f"center of mass {axis} speed" for axis in observed.AXES),
            *velocities,
        )
    if family == "Pendulum":
        return ("sin pole", "cos pole", *velocities)
    if family == "Reacher":
        return (*positions, "target - finger x", "target - finger y", *velocities)
    if family == "Swimmer":
        local = [f"{b} {what}" for b in bodies for what in ("x speed", "y speed", "spin z")]
        return (*positions[3:], "target - nose x", "target - nose y", *local)
    if family == "Walker":
        turned = [f"{part} {body}" for body in bodies for part in ("cos", "sin")]
        return (*turned, "torso upright", *velocities)
    return observed.of_joints(model, TASKS[task].observation_size)


def make_playground_env(task: str, episode_length: int, action_repeat: int) -> Env:
    """Adapt a task of Playground.

    No task terminates. Playground calls a state done if it is not a number; here the reward is NaN
    then, so that whoever steps notices.

    Args:
      task: a key of `TASKS`.
      episode_length: time limit in control steps of the task; it ends the episode but leaves the
        transition's discount at 1.
      action_repeat: control steps per action; rewards are summed.

    Raises:
      ConfigError: Playground is not installed.
    """
    simulator = load(task)
    info = TASKS[task]
    spec = EnvSpec(
        name=PREFIX + task,
        observation_size=info.observation_size,
        action_size=info.action_size,
        episode_length=episode_length,
        action_repeat=action_repeat,
        dt=round(simulator.dt * action_repeat, 6),
        observed=names_of(task, simulator.mj_model),
    )

    def reset(key: jax.Array) -> EnvState:
        # Some tasks use a key twice, which JAX refuses of a typed key under its check for that.
        state = simulator.reset(jax.random.key_data(key))
        return EnvState(_row(state.data), state.obs, jnp.int32(0), jnp.bool_(False))

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        del key  # MJX is deterministic.

        def repeat(carry, _):
            row, _, total = carry
            after = simulator.step(_playground_state(simulator, row), action)
            reward = jnp.where(after.done > 0, jnp.nan, after.reward)
            return (_row(after.data), after.obs, total + reward), None

        start = state.simulator, state.observation, jnp.float32(0)
        (row, observation, reward), _ = jax.lax.scan(repeat, start, None, action_repeat)
        steps = state.steps + action_repeat
        transition = Transition(
            observation=state.observation,
            action=action,
            reward=reward,
            discount=jnp.float32(1),
            next_observation=observation,
        )
        return EnvState(row, observation, steps, steps >= episode_length), transition

    picture = Picture(
        frame=lambda state: jnp.append(state.simulator.qpos, state.simulator.mocap_pos),
        model=lambda: simulator.mj_model,
        positions=lambda frames: np.asarray(frames, np.float64),
    )
    return Env(
        spec,
        reset,
        step,
        terminated=never,
        differentiable=info.differentiable,
        picture=picture,
    )


def _row(data: Any) -> Row:
    """Return what of MJX's data the next step reads."""
    return Row(*(getattr(data, name) for name in Row._fields))


def _playground_state(simulator: Any, row: Row) -> Any:
    """Return a state of Playground that a step cannot tell from the one the row was taken of."""
    from mujoco import mjx
    from mujoco_playground import State  # pyright: ignore[reportMissingImports]

    data = mjx.make_data(simulator.mj_model, impl="jax").replace(**row._asdict())
    # Steps write into the metrics, and read neither those nor the rest.
    return State(data, obs=(), reward=(), done=(), metrics={}, info={})  # pyright: ignore
