"""Pendulums to be swung up. Angles are in radians, counted from the upright."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.envs.system import System

GRAVITY = 9.81
"""In metres per second squared, but for `pendulum`, which has Gym's."""


def rk4(derivative: Callable[[jax.Array], jax.Array], state: jax.Array, dt: float) -> jax.Array:
    """Integrate `state' = derivative(state)` over `dt`, by the classical Runge-Kutta method."""
    first = derivative(state)
    second = derivative(state + 0.5 * dt * first)
    third = derivative(state + 0.5 * dt * second)
    fourth = derivative(state + dt * third)
    return state + dt / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)


def wrapped(angle: jax.Array) -> jax.Array:
    """Return the same direction in [-pi, pi)."""
    return jnp.mod(angle + jnp.pi, 2.0 * jnp.pi) - jnp.pi


def closeness(offset: jax.Array, scale: float) -> jax.Array:
    """Return `exp(-|offset|^2 / scale^2)`: 1 at the target, smooth, and above 0 far away."""
    return jnp.exp(-jnp.sum(jnp.square(offset)) / scale**2)


PENDULUM_GRAVITY = 10.0
PENDULUM_TORQUE = 2.0
"""In newton metres."""
PENDULUM_SPEED = 8.0
"""Limit in radians per second."""
PENDULUM_DT = 0.05


def pendulum_acceleration(angle: jax.Array, torque: jax.Array) -> jax.Array:
    """Return the angular acceleration of a rod of 1 kg and 1 m that turns about its end."""
    return 1.5 * PENDULUM_GRAVITY * jnp.sin(angle) + 3.0 * torque


def make_pendulum() -> System:
    """Build the swing-up of a pendulum whose torque cannot lift it at once.

    Equations, limits and reward are those of Gym's Pendulum-v1, the reward not scaled:
    `-(angle^2 + 0.1 speed^2 + 0.001 torque^2)` with the angle in [-pi, pi), before the step. The
    state is `(angle, speed)`, the observation `(cos, sin, speed / 8)`. An episode starts anywhere
    on the circle, at speeds up to 1 rad/s.
    """

    def initial(key: jax.Array) -> jax.Array:
        widths = jnp.array([jnp.pi, 1.0])
        return widths * jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        del key
        angle, speed = state
        acceleration = pendulum_acceleration(angle, PENDULUM_TORQUE * action[0])
        speed = speed + PENDULUM_DT * acceleration
        speed = jnp.clip(speed, -PENDULUM_SPEED, PENDULUM_SPEED)
        return jnp.stack([angle + PENDULUM_DT * speed, speed])

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        del next_state
        angle, speed = state
        torque = PENDULUM_TORQUE * action[0]
        return -(wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)

    def observe(state: jax.Array) -> jax.Array:
        angle, speed = state
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed / PENDULUM_SPEED])

    observed = ("cos θ", "sin θ", "ω / 8")
    return System(3, 1, PENDULUM_DT, initial, dynamics, reward, observe, observed=observed)


CART_MASS = 1.0
POLE_MASS = 0.1
POLE_HALF_LENGTH = 0.5
CART_FORCE = 10.0
"""In newtons."""
TRACK = 2.0
"""How far the cart can go to either side, in metres, before it meets a spring."""
BUFFER_STIFFNESS = 50.0
"""Of these springs, in newtons per metre."""
CARTPOLE_DT = 0.04


def cartpole_derivative(state: jax.Array, force: jax.Array | float) -> jax.Array:
    """Return the time derivative of `(position, speed, angle, angular speed)`, without friction.

    The pole is a uniform rod (Barto, Sutton and Anderson 1983, without their friction). Springs
    stop the cart at the ends of its track.
    """
    position, speed, angle, spin = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass = CART_MASS + POLE_MASS
    moment = POLE_MASS * POLE_HALF_LENGTH
    force = force - BUFFER_STIFFNESS * (position - jnp.clip(position, -TRACK, TRACK))
    push = (force + moment * spin**2 * sine) / mass
    inertia = POLE_HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine**2 / mass)
    spin_up = (GRAVITY * sine - cosine * push) / inertia
    return jnp.stack([speed, push - moment * spin_up * cosine / mass, spin, spin_up])


def make_cartpole() -> System:
    """Build the swing-up of a pole on a cart, by forces up to 10 N on the cart.

    The state is `(position, speed, angle, angular speed)` in metres and radians, the observation
    `(position, speed, cos, sin, angular speed)`. A pole of 1 m starts hanging, all numbers within
    0.05 of rest. The reward after a step is the product of the tip's height, from 0 hanging to 1
    upright, of `(1 + c) / 2` with `c = 1 / (1 + position^2)`, which is largest at the centre, and
    of `1 / (1 + (angular speed / 5)^2)`, without which it would pay to spin.
    """

    def initial(key: jax.Array) -> jax.Array:
        noise = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return noise + jnp.array([0.0, 0.0, jnp.pi, 0.0])

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        del key
        force = CART_FORCE * action[0]
        return rk4(lambda state: cartpole_derivative(state, force), state, CARTPOLE_DT)

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        del state, action
        position, _, angle, spin = next_state
        height = 0.5 * (1.0 + jnp.cos(angle))
        centred = 0.5 + 0.5 / (1.0 + position**2)
        slow = 1.0 / (1.0 + (spin / 5.0) ** 2)
        return height * centred * slow

    def observe(state: jax.Array) -> jax.Array:
        position, speed, angle, spin = state
        return jnp.stack([position, speed, jnp.cos(angle), jnp.sin(angle), spin])

    observed = ("x", "v", "cos θ", "sin θ", "ω")
    return System(5, 1, CARTPOLE_DT, initial, dynamics, reward, observe, observed=observed)


LINK_MASS = 1.0
LINK_LENGTH = 1.0
JOINT_TORQUES = (10.0, 5.0)
"""Limits in newton metres; held out sideways, the two links pull with 19.6 at the first joint."""
DOUBLE_PENDULUM_DT = 0.05
DOUBLE_PENDULUM_SUBSTEPS = 4
"""Steps of the integrator per step: after a free fall, the second link turns at 20 rad/s."""


def double_pendulum_derivative(state: jax.Array, torques: jax.Array) -> jax.Array:
    """Return the time derivative of `(angle 1, angle 2, speed 1, speed 2)`, without friction.

    Both links are uniform rods of mass m and length l, and both angles are counted from the
    upright. The Lagrangian is

      i1 w1^2 / 2 + i2 w2^2 / 2 + c w1 w2 cos(q1 - q2) - h1 cos(q1) - h2 cos(q2),

    with i1 = 4/3 m l^2, i2 = 1/3 m l^2, c = 1/2 m l^2, h1 = 3/2 m g l and h2 = 1/2 m g l. The
    torque of the second joint acts on both links, in opposite directions.
    """
    first, second, first_speed, second_speed = state
    square = LINK_MASS * LINK_LENGTH**2
    weight = LINK_MASS * GRAVITY * LINK_LENGTH
    inertia, outer_inertia = 4.0 / 3.0 * square, square / 3.0
    coupling = 0.5 * square * jnp.cos(first - second)
    whirl = 0.5 * square * jnp.sin(first - second)
    load = torques[0] - torques[1] - whirl * second_speed**2 + 1.5 * weight * jnp.sin(first)
    outer_load = torques[1] + whirl * first_speed**2 + 0.5 * weight * jnp.sin(second)
    determinant = inertia * outer_inertia - coupling**2
    acceleration = (outer_inertia * load - coupling * outer_load) / determinant
    outer_acceleration = (inertia * outer_load - coupling * load) / determinant
    return jnp.stack([first_speed, second_speed, acceleration, outer_acceleration])


def make_double_pendulum() -> System:
    """Build the swing-up of two links by torques at both joints, neither enough to lift at once.

    The state is `(angle 1, angle 2, speed 1, speed 2)`, the observation `(cos 1, sin 1, cos 2,
    sin 2, speed 1, speed 2)`. Both links of 1 m start hanging, all numbers within 0.05 of rest. The
    reward is `exp(-d^2 / 4)`, where d metres is how far the tip is, after the step, from where it
    stands upright: 1 at best, 0.018 for the hanging links.
    """

    def initial(key: jax.Array) -> jax.Array:
        noise = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return noise + jnp.array([jnp.pi, jnp.pi, 0.0, 0.0])

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        del key
        torques = jnp.array(JOINT_TORQUES) * action

        def substep(state, _):
            dt = DOUBLE_PENDULUM_DT / DOUBLE_PENDULUM_SUBSTEPS
            return rk4(lambda state: double_pendulum_derivative(state, torques), state, dt), None

        return jax.lax.scan(substep, state, None, DOUBLE_PENDULUM_SUBSTEPS)[0]

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        del state, action
        angles = next_state[:2]
        sideways, below = jnp.sum(jnp.sin(angles)), jnp.sum(1.0 - jnp.cos(angles))
        return closeness(LINK_LENGTH * jnp.stack([sideways, below]), 2.0 * LINK_LENGTH)

    def observe(state: jax.Array) -> jax.Array:
        first, second, *speeds = state
        pairs = [jnp.cos(first), jnp.sin(first), jnp.cos(second), jnp.sin(second)]
        return jnp.stack(pairs + speeds)

    observed = ("cos θ₁", "sin θ₁", "cos θ₂", "sin θ₂", "ω₁", "ω₂")
    return System(6, 2, DOUBLE_PENDULUM_DT, initial, dynamics, reward, observe, observed=observed)
