"""Do published comparisons of gradient estimators come out here?

Each part reproduces one result, by exact integration over the noise where that can be, else from
many trajectories, and says what was expected and what was found.

    python -m experiments.gradient_estimators
    python -m experiments.gradient_estimators --part chaos --part stiffness
    python -m experiments.gradient_estimators --draw-only
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, gradient_runs
from mbpo_jax.config import EstimatorConfig, StudyConfig
from mbpo_jax.files import Row, read_rows
from mbpo_jax.laboratory.estimators import likelihood_ratio, pathwise, perturbation
from mbpo_jax.laboratory.estimators.batches import path_rows, ratio_rows
from mbpo_jax.laboratory.measures.programs import make_programs
from mbpo_jax.laboratory.measures.study import study
from mbpo_jax.laboratory.problems.closed_form import (
    make_chaotic_rnn_problem,
    make_heaviside_problem,
    make_one_step_problem,
    make_scalar_lq_problem,
)
from mbpo_jax.laboratory.problems.problem import Noise, Problem, draw, roll_out, to_go
from mbpo_jax.laboratory.problems.systems import (
    make_double_pendulum_fall_problem,
    make_pushing_problem,
)

ONE_STEP = {
    "quadratic": (lambda k: lambda x: jnp.square(x - k), np.linspace(-3.0, 3.0, 25)),
    "exponential": (lambda k: lambda x: jnp.exp(-k * x * x), np.logspace(-1.0, 1.0, 25)),
    "cosine": (lambda k: lambda x: jnp.cos(k * x), np.logspace(np.log10(0.5), np.log10(5.0), 25)),
}
"""Functions of a normal variable of mean and std 1 (Mohamed et al. 2020, arXiv:1906.10652)."""
BETAS = (1.0, 2.4, 3.5, 5.0)
CHAOS_HORIZONS = (10, 20, 40, 60, 80, 100)
FALL_HORIZONS = (2, 5, 10, 20, 40, 80, 160)
STIFFNESSES = tuple(float(x) for x in np.round(np.logspace(1.0, 3.75, 12)))
STIFF = 1500.0
"""Near where both gradients vary as much."""
WIDTHS = (0.4, 0.1, 0.02, 0.004)
TOLERANCES = (0.1, 1.0, 10.0, 100.0, 1000.0)


def moments(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance `[P]` of gradients `[N, P]` under weights `[N]`."""
    mean = weights @ rows
    return mean, weights @ np.square(rows - mean)


def normal_grid(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights of a standard normal variable, evenly spaced up to 9."""
    x = np.linspace(-9.0, 9.0, nodes)
    weights = np.exp(-0.5 * x**2)
    return x, weights / weights.sum()


def one_step_noise(problem: Problem, eps: np.ndarray) -> Noise:
    """Return the noise of one-step trajectories `[N]`."""
    start = problem.start(jax.random.key(0))
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(eps), *jnp.shape(x))), start)
    return Noise(start, jnp.asarray(eps)[:, None, None], jnp.zeros((len(eps), 1, 0)))


def scored(problem: Problem, signal: Callable) -> Callable[[Noise], jax.Array]:
    """Return the likelihood ratio of one trajectory, for a signal of its steps."""

    def one(noise: Noise) -> jax.Array:
        made = jax.lax.stop_gradient(roll_out(problem.params, problem, noise))
        return likelihood_ratio.at_actions(problem.params, problem, made, signal(made))

    return one


def one_step() -> Iterator[Row]:
    """Part 1: variance curves of Mohamed et al. 2020, figs. 2 and 3, by quadrature."""
    eps, weights = normal_grid(4001)
    weibull = np.linspace(0.0, 9.0, 2001)
    weibull_weights = weibull * np.exp(-0.5 * weibull**2)
    weibull_weights /= weibull_weights.sum()
    for function, (make, values) in ONE_STEP.items():
        for k in values:
            problem = make_one_step_problem(function, make(float(k)), 1.0, 1.0)
            noise = one_step_noise(problem, eps)
            expected = weights @ np.asarray(jax.vmap(make(float(k)))(1.0 + jnp.asarray(eps)))
            ones = {
                "rp": lambda n, p=problem: pathwise.gradient(pathwise.whole)(p.params, p, n),
                "lr_total": scored(problem, lambda made, p=problem: to_go(p, made)),
                "lr_loo": scored(problem, lambda m, p=problem, b=expected: to_go(p, m) - b),
            }
            for name, one in ones.items():
                mean, variance = moments(np.asarray(jax.jit(jax.vmap(one))(noise)), weights)
                for index, parameter in enumerate(("mean", "std")):
                    yield {
                        "function": function,
                        "k": float(k),
                        "estimator": name,
                        "parameter": parameter,
                        "gradient": mean[index],
                        "variance": variance[index],
                    }
            coupled = jax.vmap(lambda w, p=problem: measure_valued_in_mean(p, w))
            mean, variance = moments(np.asarray(coupled(jnp.asarray(weibull))), weibull_weights)
            yield {
                "function": function,
                "k": float(k),
                "estimator": "mvd",
                "parameter": "mean",
                "gradient": mean[0],
                "variance": variance[0],
            }


def measure_valued_in_mean(problem: Problem, weibull: jax.Array) -> jax.Array:
    """Return the coupled measure-valued gradient of a one-step problem; that in the std is 0."""
    noise = jax.tree.map(lambda x: x[0], one_step_noise(problem, np.zeros(1)))
    nothing = jnp.zeros((1, 1))
    coupling = {"weibull": weibull[None, None], "maxwell": nothing, "normal": nothing}
    return pathwise.gradient(perturbation.measure_valued)(problem.params, problem, noise, coupling)


def hermite_noise(problem: Problem, horizon: int, nodes: int = 5) -> tuple[Noise, np.ndarray]:
    """Return all noise of a problem with one action component, and weights."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    index = np.stack(np.meshgrid(*[np.arange(nodes)] * horizon, indexing="ij"), -1)
    index = index.reshape(-1, horizon)
    start = jnp.asarray(problem.start(jax.random.key(0)))
    noise = Noise(
        jnp.broadcast_to(start, (len(index), *start.shape)),
        jnp.asarray(x[index])[..., None],
        jnp.zeros((len(index), horizon, 0)),
    )
    return noise, np.prod((w / w.sum())[index], axis=1)


def linear_quadratic() -> Iterator[Row]:
    """Part 2: exact variances on a scalar linear system, and value expansion's trade-off."""
    problem = make_scalar_lq_problem()
    params = problem.params
    assert problem.critic is not None
    assert problem.exact is not None
    total = functools.partial(likelihood_ratio.total_return, problem)
    for horizon in range(1, 9):
        critic = problem.critic(params, horizon)
        noise, weights = hermite_noise(problem, horizon)
        expected = critic.value(jnp.asarray(0), problem.start(jax.random.key(0)))
        ones = {
            "q": lambda n, c=critic: pathwise.gradient(pathwise.action_values)(
                params, problem, c, n
            ),
            "rp": lambda n: pathwise.gradient(pathwise.whole)(params, problem, n),
            "lr_advantage": scored(
                problem, lambda made, c=critic: likelihood_ratio.exact_advantage(problem, made, c)
            ),
            "lr_value": scored(
                problem,
                lambda m, c=critic: to_go(problem, m) - likelihood_ratio.values(c, m),
            ),
            "lr_to_go": scored(problem, lambda made: to_go(problem, made)),
            "lr_loo": scored(problem, lambda made, b=expected: total(made) - b),
            "lr_total": scored(problem, total),
        }
        exact = float(problem.exact(params, horizon)[0])
        for name, one in ones.items():
            mean, variance = moments(np.asarray(jax.jit(jax.vmap(one))(noise)), weights)
            yield {
                "estimator": name,
                "horizon": horizon,
                "gradient": mean[0],
                "exact": exact,
                "variance": variance[0],
            }
    yield from expansion_rows(8)


def expansion_rows(horizon: int) -> Iterator[Row]:
    """Yield bias and variance of tiled windows, with a right and with a wrong critic."""
    for critic_error in (0.0, 0.3):
        problem = make_scalar_lq_problem(critic_error)
        assert problem.critic is not None
        assert problem.exact is not None
        critic = problem.critic(problem.params, horizon)
        noise, weights = hermite_noise(problem, horizon)
        exact = float(problem.exact(problem.params, horizon)[0])
        for window in range(1, horizon + 1):

            def one(n: Noise, p=problem, c=critic, w=window) -> jax.Array:
                return pathwise.gradient(pathwise.tiled)(p.params, p, c, n, w)

            mean, variance = moments(np.asarray(jax.jit(jax.vmap(one))(noise)), weights)
            yield {
                "estimator": "svg_tiled",
                "horizon": horizon,
                "window": window,
                "critic_error": critic_error,
                "gradient": mean[0],
                "exact": exact,
                "variance": variance[0],
            }


def single_variances(problem: Problem, horizon: int, rows: int) -> Iterator[Row]:
    """Yield variances of gradients of single trajectories, with 95 % bootstrap intervals."""
    keys = jax.random.split(jax.random.key(0), rows)
    noise = jax.vmap(lambda key: draw(key, problem, horizon))(keys)
    rng = np.random.default_rng(0)
    for name, gradients in (("rp", path_rows), ("lr", ratio_rows)):
        found = np.asarray(jax.jit(lambda n, g=gradients: g(problem.params, problem, n))(noise))
        square = np.sum(np.square(found - found.mean(axis=0)), axis=1) * rows / (rows - 1)
        resampled = [np.mean(rng.choice(square, rows)) for _ in range(200)]
        yield {
            "estimator": name,
            "horizon": horizon,
            "variance": np.mean(square),
            "variance_interval": list(np.quantile(resampled, (0.025, 0.975))),
            "largest_share": square.max() / square.sum(),
        }


def chaos() -> Iterator[Row]:
    """Part 3: the chaotic recurrent network of Proppo's demonstration."""
    for beta in BETAS:
        for horizon in CHAOS_HORIZONS:
            for row in single_variances(make_chaotic_rnn_problem(beta), horizon, 50_000):
                yield {"beta": beta, **row}
    problem, batches, batch_size = make_chaotic_rnn_problem(2.4), 50, 1000
    programs = make_programs(problem, EstimatorConfig())
    for horizon in CHAOS_HORIZONS:
        for name in ("rp", "lr", "tp"):
            drawn = programs.estimates(jax.random.key(1), name, horizon, batches, batch_size)
            found = np.asarray(drawn)[:, 0]
            yield {
                "beta": 2.4,
                "estimator": name,
                "horizon": horizon,
                "batch_size": batch_size,
                "variance": found.var(ddof=1),
                "gradient": found.mean(),
            }


def fall() -> Iterator[Row]:
    """Part 4: a falling double pendulum, in the parameters of its random initial state."""
    for horizon in FALL_HORIZONS:
        yield from single_variances(make_double_pendulum_fall_problem(), horizon, 4000)


def stiffness() -> Iterator[Row]:
    """Part 5: pushing through a spring, from soft to stiff."""
    for k in STIFFNESSES:
        for row in single_variances(make_pushing_problem(k), 100, 4000):
            yield {"stiffness": k, **row}


def steps() -> Iterator[Row]:
    """Part 6: a step that gets steeper, by quadrature; and same-batch weights on it."""
    eps, weights = normal_grid(400_001)
    for width in WIDTHS:
        problem = make_heaviside_problem(width)
        assert problem.exact is not None
        exact = float(problem.exact(problem.params, 1)[0])
        noise = one_step_noise(problem, eps)
        ones = {
            "rp": lambda n, p=problem: pathwise.gradient(pathwise.whole)(p.params, p, n),
            "lr_total": scored(problem, lambda made, p=problem: to_go(p, made)),
        }
        for name, one in ones.items():
            mean, variance = moments(np.asarray(jax.jit(jax.vmap(one))(noise)), weights)
            yield {
                "width": width,
                "estimator": name,
                "gradient": mean[0],
                "exact": exact,
                "variance": variance[0],
            }
        programs = make_programs(problem, EstimatorConfig())
        for name in ("ivw", "ivw_split", "ddcg", "aobg"):
            for batch_size in (10, 100):
                drawn = programs.estimates(jax.random.key(0), name, 1, 10_000, batch_size)
                found = np.asarray(drawn)[:, 0]
                yield {
                    "width": width,
                    "estimator": name,
                    "batch_size": batch_size,
                    "gradient": found.mean(),
                    "gradient_error": found.std(ddof=1) / np.sqrt(len(found)),
                    "exact": exact,
                    "variance": found.var(ddof=1),
                }


def contact() -> Iterator[Row]:
    """Part 12: weighted estimators under stiff contact; AoBG at several tolerances."""
    problem = make_pushing_problem(STIFF)
    names = ("lr", "rp", "ivw", "ivw_split", "ivw_h", "ddcg", "tp")
    config = StudyConfig(
        estimators=names,
        horizons=(100,),
        batch_sizes=(10, 100),
        batches=100,
        reference_batches=200,
        reference_batch_size=500,
    )
    yield from study(problem, config)
    alone = dataclasses.replace(config, estimators=("aobg",))
    for tolerance in TOLERANCES:
        for row in study(problem, alone, EstimatorConfig(tolerance=tolerance)):
            yield {**row, "tolerance": tolerance}


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "one_step": one_step,
    "linear_quadratic": linear_quadratic,
    "chaos": chaos,
    "fall": fall,
    "stiffness": stiffness,
    "steps": steps,
    "contact": contact,
    "spectral_norm": gradient_runs.spectral_norm,
    "run_pendulum": functools.partial(gradient_runs.trained_run, "pendulum"),
    "run_inverted_pendulum": functools.partial(gradient_runs.trained_run, "inverted_pendulum"),
}


def main() -> int:
    """Run the parts that are asked for, keep the others' rows, and draw all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="all if not given")
    parser.add_argument("--draw-only", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if not arguments.draw_only:
        for part in arguments.part or PARTS:
            print(f"--- {part}", flush=True)
            common.replace_part(gradient_runs.NAME, part, PARTS[part]())
    from experiments.gradient_figures import draw_all

    draw_all(read_rows(common.results_file(gradient_runs.NAME)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
