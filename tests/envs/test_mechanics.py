"""Pendulums against Lagrange's equations, Gym's, and what is known near rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import SYSTEMS, make_analytic_env
from mbpo_jax.envs.mechanics import (
    CART_FORCE,
    CARTPOLE_DT,
    GRAVITY,
    JOINT_TORQUES,
    cartpole_derivative,
    double_pendulum_derivative,
    rk4,
    wrapped,
)

LENGTH = 200


def cartpole_energies(state):
    """Return kinetic and potential energy of a cart of 1 kg and a rod of 0.1 kg and 1 m.

    Springs of 50 N/m stop the cart 2 m to either side.
    """
    position, speed, angle, spin = state
    # The rod's centre moves with the cart and about the joint, half a metre away.
    sideways, upwards = speed + 0.5 * spin * jnp.cos(angle), -0.5 * spin * jnp.sin(angle)
    turning = 0.5 * (0.1 * 1.0**2 / 12) * spin**2
    kinetic = 0.5 * speed**2 + 0.5 * 0.1 * (sideways**2 + upwards**2) + turning
    spring = 0.5 * 50.0 * jnp.maximum(jnp.abs(position) - 2.0, 0.0) ** 2
    return kinetic, 0.1 * GRAVITY * 0.5 * jnp.cos(angle) + spring


def double_pendulum_energies(state):
    """Return kinetic and potential energy of two rods of 1 kg and 1 m, from their centres."""
    first, second, first_speed, second_speed = state
    joint = first_speed * jnp.stack([jnp.cos(first), -jnp.sin(first)])
    centre = joint + 0.5 * second_speed * jnp.stack([jnp.cos(second), -jnp.sin(second)])
    turning = 0.5 / 12 * (first_speed**2 + second_speed**2)
    kinetic = 0.5 * jnp.sum((0.5 * joint) ** 2) + 0.5 * jnp.sum(centre**2) + turning
    height = 0.5 * jnp.cos(first) + jnp.cos(first) + 0.5 * jnp.cos(second)
    return kinetic, GRAVITY * height


ENERGIES = {"cartpole": cartpole_energies, "double_pendulum": double_pendulum_energies}


def lagrange(energies, interleaved):
    """Return `(state, acceleration) -> generalised forces` by Lagrange's equations."""

    def forces(state, acceleration):
        position, speed = (state[::2], state[1::2]) if interleaved else jnp.split(state, 2)

        def lagrangian(position, speed):
            both = jnp.stack([position, speed], 1) if interleaved else jnp.stack([position, speed])
            kinetic, potential = energies(both.ravel())
            return kinetic - potential

        momentum = jax.grad(lagrangian, 1)
        by_position, by_speed = jax.jacobian(momentum, (0, 1))(position, speed)
        rate = by_position @ speed + by_speed @ acceleration
        return rate - jax.grad(lagrangian, 0)(position, speed)

    return forces


def test_the_cartpole_obeys_lagranges_equations(key):
    """The force acts on the cart, nothing on the joint."""
    forces = jax.jit(lagrange(cartpole_energies, interleaved=True))
    for state in 3.0 * jax.random.normal(key, (10, 4)):
        derivative = cartpole_derivative(state, 7.0)
        np.testing.assert_array_equal(derivative[::2], state[1::2])
        np.testing.assert_allclose(forces(state, derivative[1::2]), [7.0, 0.0], atol=1e-4)


def test_the_double_pendulum_obeys_lagranges_equations(key):
    """The second joint's torque acts on its link, and its reaction on the first one."""
    forces = jax.jit(lagrange(double_pendulum_energies, interleaved=False))
    for state in 3.0 * jax.random.normal(key, (10, 4)):
        derivative = double_pendulum_derivative(state, jnp.array([7.0, 4.0]))
        np.testing.assert_array_equal(derivative[:2], state[2:])
        np.testing.assert_allclose(forces(state, derivative[2:]), [3.0, 4.0], atol=2e-3)


@pytest.mark.parametrize("name", ENERGIES)
def test_energy_is_conserved_while_nothing_is_done(name, key):
    """To one in a hundred of the pendulum's potential energy upright, over an episode."""
    env, energies = make_analytic_env(name, LENGTH), ENERGIES[name]

    @jax.jit
    @jax.vmap
    def drift(simulator):
        start = env.reset(jax.random.key(0))._replace(simulator=simulator)

        def step(state, _):
            state, _ = env.step(jax.random.key(1), state, jnp.zeros(env.spec.action_size))
            return state, sum(energies(state.simulator))

        total = jax.lax.scan(step, start, None, LENGTH)[1]
        return jnp.max(jnp.abs(total - sum(energies(simulator))))

    starts = jax.random.uniform(key, (16, 4), minval=-1.0, maxval=1.0)
    assert np.max(drift(starts)) < 0.01 * energies(jnp.zeros(4))[1]


def test_momentum_grows_by_the_force_on_the_cart():
    env = make_analytic_env("cartpole", LENGTH)
    state = env.reset(jax.random.key(0))

    def momentum(state):
        _, speed, angle, spin = state.simulator
        return float(speed + 0.1 * (speed + 0.5 * spin * jnp.cos(angle)))

    before = momentum(state)
    step = jax.jit(env.step)
    for _ in range(20):
        state, _ = step(jax.random.key(1), state, jnp.array([0.3]))
    assert momentum(state) - before == pytest.approx(0.3 * CART_FORCE * 20 * CARTPOLE_DT, rel=1e-4)


def transition_matrix(name, angle):
    """Return the derivative of a step's state with respect to the one before, at rest."""
    env = make_analytic_env(name, LENGTH)
    state = env.reset(jax.random.key(0))
    size = 2 if name == "double_pendulum" else 1
    rest = {"pendulum": [angle, 0.0], "cartpole": [0.0, 0.0, angle, 0.0]}
    rest = jnp.array(rest.get(name, [angle] * size + [0.0] * size))

    def following(simulator):
        after = env.step(jax.random.key(1), state._replace(simulator=simulator), jnp.zeros(size))
        return after[0].simulator

    return np.asarray(jax.jit(jax.jacobian(following))(rest)), env.spec.dt


def frequencies(name):
    """Return the angular frequencies of small swings about the hanging rest, by theory."""
    if name == "pendulum":
        return np.sqrt([1.5 * 10.0])
    if name == "cartpole":
        return np.sqrt([GRAVITY / (0.5 * (4 / 3 - 0.1 / 1.1))])
    # The modes of two rods: stiffness against inertia, both over a mass and a squared length.
    inertia = np.array([[4 / 3, 1 / 2], [1 / 2, 1 / 3]])
    stiffness = GRAVITY * np.diag([3 / 2, 1 / 2])
    return np.sqrt(np.linalg.eigvals(np.linalg.solve(inertia, stiffness)))


@pytest.mark.parametrize("name", ["pendulum", "cartpole", "double_pendulum"])
def test_small_swings_have_the_frequencies_of_theory(name):
    """A mode turns by its frequency times the time step in the complex plane."""
    matrix, dt = transition_matrix(name, jnp.pi)
    angles = np.angle(np.linalg.eigvals(matrix))
    measured = np.unique(angles[angles > 0.01].round(6)) / dt
    np.testing.assert_allclose(measured, np.sort(frequencies(name)), rtol=2e-3)


@pytest.mark.parametrize("name", ["cartpole", "double_pendulum"])
def test_the_upright_is_left_at_the_rates_of_theory(name):
    """There the same square roots are rates of growth and decay."""
    matrix, dt = transition_matrix(name, 0.0)
    growth = np.log(np.abs(np.linalg.eigvals(matrix))) / dt
    expected = frequencies(name)
    np.testing.assert_allclose(np.sort(growth[growth > 0.1]), np.sort(expected), rtol=2e-3)
    np.testing.assert_allclose(np.sort(-growth[growth < -0.1]), np.sort(expected), rtol=2e-3)


def test_runge_kutta_is_of_fourth_order():
    """Half the step leaves about a sixteenth of the error, here of a circle's point."""
    turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])

    def error(steps):
        state = jnp.array([1.0, 0.0])
        for _ in range(steps):
            state = rk4(lambda state: turn @ state, state, 4.0 / steps)
        return np.linalg.norm(state - np.array([np.cos(4.0), np.sin(4.0)]))

    assert np.log2(error(4) / error(8)) == pytest.approx(4.0, abs=0.3)


def test_the_pendulum_is_gyms(key):
    """Gym's equations, written out in NumPy; its torque is 2 newton metres at an action of 1."""
    env = make_analytic_env("pendulum", LENGTH)
    actions = np.asarray(jax.random.uniform(key, (60,), minval=-1.5, maxval=1.5))
    state = env.reset(jax.random.key(3))
    angle, speed = np.asarray(state.simulator, float)
    step = jax.jit(env.step)
    for action in actions:
        torque = np.clip(2 * action, -2, 2)
        direction = (angle + np.pi) % (2 * np.pi) - np.pi
        reward = -(direction**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
        angle = angle + speed * 0.05
        state, transition = step(jax.random.key(1), state, jnp.array([action]))
        observed = [np.cos(angle), np.sin(angle), speed / 8]
        np.testing.assert_allclose(transition.next_observation, observed, atol=1e-3)
        assert float(transition.reward) == pytest.approx(reward, abs=2e-2)


def test_the_pendulums_speed_is_limited():
    env = make_analytic_env("pendulum", LENGTH)
    state = env.reset(jax.random.key(0))._replace(simulator=jnp.array([1.5, 7.9]))
    state, transition = env.step(jax.random.key(1), state, jnp.array([1.0]))
    assert state.simulator[1] == 8.0
    assert transition.next_observation[2] == 1.0


@pytest.mark.parametrize("angle", [0.3, -0.3, 3.1, -3.1])
@pytest.mark.parametrize("turns", [-2, 0, 1])
def test_turns_do_not_change_the_wrapped_angle(angle, turns):
    assert wrapped(jnp.float32(angle + 2 * np.pi * turns)) == pytest.approx(angle, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "hanging", "least"),
    [
        ("cartpole", [0.0, 0.0, np.pi, 0.0], 0.0),
        # The tip is two reaches away from its goal.
        ("double_pendulum", [np.pi, np.pi, 0.0, 0.0], np.exp(-4)),
    ],
)
def test_swing_ups_reward_the_upright_by_one_and_rest_by_next_to_nothing(name, hanging, least):
    reward = functools.partial(SYSTEMS[name].reward, jnp.zeros(4), jnp.zeros(1))
    assert reward(jnp.zeros(4)) == 1.0
    assert reward(jnp.array(hanging)) == pytest.approx(least, rel=1e-4, abs=1e-7)
    states = 3.0 * jax.random.normal(jax.random.key(0), (200, 4))
    rewards = jax.vmap(reward)(states)
    assert float(rewards.min()) >= 0.0
    assert float(rewards.max()) < 1.0


@pytest.mark.parametrize(
    ("position", "angle", "spin", "expected"),
    [
        (1.0, 0.0, 0.0, 0.75),
        (-3.0, 0.0, 0.0, 0.55),
        (0.0, np.pi / 2, 0.0, 0.5),
        (0.0, 0.0, -5.0, 0.5),
        (1.0, np.pi / 3, 10.0, 0.1125),
    ],
)
def test_the_cartpole_is_rewarded_for_height_at_the_centre_at_rest(position, angle, spin, expected):
    """Heights are 1, 1, 1/2, 1, 3/4; shares 3/4, 11/20, 1, 1, 3/4; and 1, 1, 1, 1/2, 1/5."""
    reward = functools.partial(SYSTEMS["cartpole"].reward, jnp.zeros(4), jnp.zeros(1))
    assert reward(jnp.array([position, 0.0, angle, spin])) == pytest.approx(expected, rel=1e-5)


def test_springs_keep_the_cart_on_its_track():
    """Work of the force from the centre is in the spring at the latest: 10 x = 25 (x - 2)^2."""
    env = make_analytic_env("cartpole", LENGTH)

    def step(state, _):
        state, _ = env.step(jax.random.key(1), state, jnp.ones(1))
        return state, state.simulator[0]

    positions = jax.lax.scan(step, env.reset(jax.random.key(0)), None, LENGTH)[1]
    furthest = max(np.roots([25.0, -110.0, 100.0]).real)
    assert 2.2 < np.max(positions) < furthest + 0.05


def pump(name, push, length=LENGTH):
    """Swing up from the hanging rest by `push(simulator) -> action`; return how high, per reach."""
    env = make_analytic_env(name, length)
    angles = {"pendulum": [0], "cartpole": [2], "double_pendulum": [0, 1]}[name]
    start = env.reset(jax.random.key(0))
    if name == "pendulum":
        start = start._replace(simulator=jnp.array([jnp.pi, 0.01]))

    def step(state, _):
        state, _ = env.step(jax.random.key(1), state, push(state.simulator))
        return state, jnp.mean(jnp.cos(state.simulator[jnp.array(angles)]))

    return float(jnp.max(jax.jit(lambda: jax.lax.scan(step, start, None, length))()[1]))


@pytest.mark.parametrize("name", ["pendulum", "double_pendulum"])
def test_a_constant_torque_does_not_lift(name):
    size = len(JOINT_TORQUES) if name == "double_pendulum" else 1
    assert pump(name, lambda state: jnp.ones(size), 40) < 0.5


def test_pumping_swings_every_pendulum_up_in_time():
    """Torques along the speed add energy; the force on the cart works by the pole's motion."""
    assert pump("pendulum", lambda state: jnp.sign(state[1:])) > 0.99

    def along(state):
        first, second = state[2:]
        return jnp.sign(jnp.stack([first, second - first]))

    assert pump("double_pendulum", along) > 0.9

    def against(state):
        _, _, angle, spin = state
        missing = cartpole_energies(jnp.zeros(4))[1] - sum(cartpole_energies(state.at[1].set(0.0)))
        return -jnp.clip(20.0 * missing, -1, 1) * jnp.sign(spin * jnp.cos(angle))[None]

    assert pump("cartpole", against) > 0.99
