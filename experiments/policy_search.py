"""Does the estimator of least variance train fastest?

`python -m experiments.policy_search` trains a policy on the analytic pendulum by `policy_search`
with six estimators, five seeds each, through the true system, so that nothing but the estimator
differs. Every update has fresh initial states. The deterministic policy is played for whole
episodes as it learns, and at a few moments the gradient that training follows is estimated again
and again at the policy of that moment: its relative variance is that of the gradient laboratory,
against the mean of pathwise gradients at the same policy.

Rows go to `experiments/results/policy_search.jsonl` estimator by estimator; those that are there
are not trained again (`--again` does). The figure lies beside them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments import common
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms.policy_search import SearchState, climb, make_search
from mbpo_jax.config import Config, EstimatorConfig, PolicySearchConfig
from mbpo_jax.envs import make_env
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.files import Row, read_rows
from mbpo_jax.laboratory.measures import metrics
from mbpo_jax.laboratory.measures.tails import tails
from mbpo_jax.presets import environment_preset
from mbpo_jax.types import Env, Transition

NAME = "policy_search"
ESTIMATORS = ("rp", "rp_truncated", "ivw", "lr", "lr_gae", "es")
REFERENCE = "rp"
SEEDS = 5
UPDATES, EVERY = 1500, 75
MOMENTS = (0, 150, 600, 1500)
"""Updates after which the variance is measured."""
ESTIMATES = 40
"""Of a gradient, at each of these."""
EPISODES = 16


def config_of(estimator: str) -> Config:
    """Return what is trained: rollouts of five seconds, which is enough to swing up and to stay."""
    base = environment_preset("pendulum")
    search = PolicySearchConfig(
        gradient=estimator,
        horizon=100,
        num_rollouts=32,
        hidden_sizes=(32,),
        learning_rate=1e-2,
        gamma=0.99,
    )
    return replace(
        base,
        algorithm="policy_search",
        model="oracle",
        policy_search=search,
        estimator=EstimatorConfig(truncation=10),
    )


def starts(env: Env, key: jax.Array, rows: int) -> Transition:
    """Return transitions `[B]` that begin where episodes do; nothing but that is looked at."""
    state = jax.vmap(env.reset)(jax.random.split(key, rows))
    nothing = jnp.zeros(rows)
    action = jnp.zeros((rows, env.spec.action_size))
    return Transition(
        state.observation, action, nothing, nothing, state.observation, simulator=state.simulator
    )


def train(estimator: str, env: Env) -> Iterator[tuple[int, SearchState, np.ndarray]]:
    """Yield updates made, the states `[seeds]` and the returns of episodes `[seeds, episodes]`."""
    agent = make_algorithm(env, config_of(estimator)).agent

    def update(state: SearchState, key: jax.Array):
        start_key, update_key = jax.random.split(key)
        batch = starts(env, start_key, agent.batch_size)
        return agent.update(update_key, state, (), batch)[0], None

    def play(state: SearchState, key: jax.Array) -> jax.Array:
        def act(key, memory, env_state):
            return agent.act(key, state, (), memory, env_state, False)

        return play_episodes(env, agent.begin, act, key, EPISODES)[0]

    @jax.jit
    def stretch(states: SearchState, keys: jax.Array):
        def one(state: SearchState, key: jax.Array):
            update_key, play_key = jax.random.split(key)
            state, _ = jax.lax.scan(update, state, jax.random.split(update_key, EVERY))
            return state, play(state, play_key)

        return jax.vmap(one)(states, keys)

    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    states = jax.jit(jax.vmap(agent.init))(keys)
    first = jax.jit(jax.vmap(play))(states, keys)
    yield 0, states, np.asarray(first)
    for done in range(EVERY, UPDATES + 1, EVERY):
        keys = jax.vmap(lambda key, n=done: jax.random.fold_in(key, n))(
            jax.vmap(jax.random.key)(jnp.arange(SEEDS))
        )
        states, returns = stretch(states, keys)
        yield done, states, np.asarray(returns)


def make_measure(estimator: str, env: Env):
    """Return a function `(key, SearchState) -> gradients [M, P]` of one seed, independent ones."""
    search = make_search(env, config_of(estimator))

    @jax.jit
    def measure(key: jax.Array, state: SearchState) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            start_key, climb_key = jax.random.split(key)
            batch = starts(env, start_key, search.rows)
            return ravel_pytree(climb(climb_key, search, state, (), batch).gradient)[0]

        return jax.lax.map(one, jax.random.split(key, ESTIMATES))

    return measure


def measured(estimates: np.ndarray, draws: np.ndarray) -> Row:
    """Return the variance of estimates over the squared norm of the mean of a reference's draws."""
    estimates, draws = (np.asarray(x, np.float64) for x in (estimates, draws))
    own = metrics.inner_products(draws, draws.mean(axis=0))
    error = float(metrics.variance(own)) / len(draws)
    inner = metrics.inner_products(estimates, draws.mean(axis=0), error)
    squared = max(inner.reference - error, 0.0)
    variance = float(metrics.variance(inner))
    return {
        "variance": variance,
        "squared_norm": squared,
        "squared_norm_error": error,
        "relative_variance": variance / squared if squared > 0.0 else None,
        "heavy_tailed": tails(inner).heavy_tailed,
    }


def rows_of(estimator: str, env: Env, reference) -> Iterator[Row]:
    """Train with an estimator, and yield its rows."""
    measure = reference if estimator == REFERENCE else make_measure(estimator, env)
    for updates, states, returns in train(estimator, env):
        print(f"{estimator:>14} {updates:5d} {returns.mean():9.1f}", flush=True)
        for seed, of_seed in enumerate(returns):
            head = {"updates": updates, "seed": seed}
            yield {"kind": "return", **head, "return": float(of_seed.mean())}
            if updates in MOMENTS:
                state = jax.tree.map(lambda x, i=seed: x[i], states)
                keys = jax.random.split(jax.random.key(1000 + seed))
                # A policy alone is what the reference looks at.
                draws = reference(keys[1], state._replace(baseline=()))
                yield {"kind": "variance", **head, **measured(measure(keys[0], state), draws)}


def report(rows: Sequence[Row]) -> None:
    """Print the table, and draw it."""
    from experiments.policy_search_figure import draw

    for estimator in ESTIMATORS:
        own = [row for row in rows if row["part"] == estimator]
        last = [r["return"] for r in own if r["kind"] == "return" and r["updates"] == UPDATES]
        cells = [f"{estimator:<14} final {np.mean(last):8.1f} ({min(last):.0f} to {max(last):.0f})"]
        for moment in MOMENTS:
            found = [r for r in own if r["kind"] == "variance" and r["updates"] == moment]
            values = [r["relative_variance"] or np.inf for r in found]
            cells.append(f"{moment}: {np.median(values):.3g}")
        print("  ".join(cells))
    draw(common.RESULTS / f"{NAME}.png", rows, ESTIMATORS)


def main() -> int:
    parser = argparse.ArgumentParser(description="Estimators that train, beside their variance.")
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    parser.add_argument("--again", action="store_true", help="train what has rows, too")
    arguments = parser.parse_args()
    raw = common.results_file(NAME)

    def known() -> list[Row]:
        return read_rows(raw) if raw.exists() else []

    if not arguments.draw_only:
        env = make_env(config_of(REFERENCE).env)
        reference = make_measure(REFERENCE, env)
        for estimator in ESTIMATORS:
            if arguments.again or estimator not in {row["part"] for row in known()}:
                common.replace_part(NAME, estimator, rows_of(estimator, env, reference))
    report(known())
    return 0


if __name__ == "__main__":
    sys.exit(main())
