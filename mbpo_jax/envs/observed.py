"""Names of what is observed, for people: of the joints of a model, and of tasks that see more."""

from typing import Any

FREE, BALL = 0, 1
"""Kinds of joints as MuJoCo numbers them; those of the other two kinds have one number each."""

AXES = ("x", "y", "z")
QUATERNION = ("qw", "qx", "qy", "qz")

ARM_AND_TARGET = (
    *("cos joint0", "cos joint1", "sin joint0", "sin joint1"),
    *("target x", "target y"),
)
"""What the tasks Reacher of all suites see first."""
FINGERTIP = tuple(f"fingertip - target {axis}" for axis in AXES)
TWO_POLES = (
    *("slider", "sin hinge", "sin hinge2", "cos hinge", "cos hinge2"),
    *("slider speed", "hinge speed", "hinge2 speed"),
)
"""What the tasks InvertedDoublePendulum of all suites see first."""
PUSHED = tuple(f"{body} {axis}" for body in ("tips arm", "object", "goal") for axis in AXES)
"""What the tasks Pusher of all suites see behind seven joints."""
PUSHER_JOINTS = 7


def of_joints(model: Any, observation_size: int, unseen: int | None = None) -> tuple[str, ...]:
    """Name observations of all positions but the first ones, then all velocities.

    Args:
      model: a `mujoco.MjModel`.
      observation_size: O. Where there is more behind them, that has no names.
      unseen: how many positions are not observed; by the sizes if None.

    Returns:
      `[O]`, or less; nothing if the sizes are not those of such observations.
    """
    positions, velocities = joint_names(model)
    if unseen is None:
        unseen = len(positions) + len(velocities) - observation_size
        if unseen not in (0, 1, 2):  # the place along the ground
            return ()
    return (*positions[unseen:], *velocities)[:observation_size]


def of_pusher(model: Any) -> tuple[str, ...]:
    """Name what the tasks Pusher observe."""
    positions, velocities = joint_names(model)
    return (*positions[:PUSHER_JOINTS], *velocities[:PUSHER_JOINTS], *PUSHED)


def joint_names(model: Any) -> tuple[list[str], list[str]]:
    """Return names of a model's positions `[nq]` and velocities `[nv]`."""
    positions, velocities = [], []
    for i in range(model.njnt):
        joint, kind = (
            model.joint(i).name.removesuffix("_joint").replace("_", " "),
            model.jnt_type[i],
        )
        spins = [f"{joint} spin {axis}" for axis in AXES]
        turned = [f"{joint} {part}" for part in QUATERNION]
        if kind == FREE:
            positions += [*(f"{joint} {axis}" for axis in AXES), *turned]
            velocities += [*(f"{joint} {axis} speed" for axis in AXES), *spins]
        elif kind == BALL:
            positions += turned
            velocities += spins
        else:
            positions.append(joint)
            velocities.append(f"{joint} speed")
    return positions, velocities
