#!/usr/bin/env bash
# brax 0.14.2, generalized: the force of a violated joint limit can be nothing at all, and costs 99 turns either way.
#
# Forces of constraints are found by projected gradient descent from 0, whose first step has a length of 1 and is halved at
# most `solver_maxls` times a turn (five in the small tasks). Where the body is light that is far too long: the descent
# overshoots by thousands, comes back to 0 by its fifth turn, and stays there, so there is no force. `reacher`'s target, a
# hundredth of a metre beyond its limit, is not pushed back; the least squares that are to be solved have one unknown, and
# their solution is -b / a. Nothing says so, and a heavier body is fine, as is the arm. Turns are made, and differentiated,
# whether or not a limit is violated or a solution found: `tol` does not end them, because the solver is unrolled to be
# differentiable, so 99 turns are most of what a step costs.
#
# Output seen:
#   turns of the longest loop: 99
#   target 0.01 m beyond its limit: force 0.00 N, least squares say -0.08 N
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'brax==0.14.2' 'mujoco-mjx==3.17.0' 'mujoco==4.0.0' 'jax==0.10.2'
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import jax
import jax.numpy as jnp
from brax import envs
from brax.generalized import constraint, pipeline
from jax.extend.core import jaxprs_in_params

env = envs.get_environment("reacher", backend="generalized")
TARGET = 2  # of the four joints, the target's first one; its limit is 0.27 m


def turns(jaxpr):
    found = [0]
    for equation in jaxpr.eqns:
        found.append(equation.params.get("length", 0) if equation.primitive.name == "scan" else 0)
        found += [turns(inner) for inner in jaxprs_in_params(equation.params)]
    return max(found)


state = pipeline.init(env.sys, jnp.zeros(4).at[TARGET].set(0.28), jnp.zeros(4))
longest = turns(jax.make_jaxpr(constraint.force)(env.sys, state).jaxpr)
print(f"turns of the longest loop: {longest}")

state = state.replace(qf_smooth=jnp.zeros(4))
felt = state.con_jac @ state.mass_mx_inv
(limit,) = jnp.flatnonzero(state.con_aref)
a = (felt @ state.con_jac.T + jnp.diag(state.con_diag))[limit, limit]
b = (felt @ state.qf_smooth - state.con_aref)[limit]
force = constraint.force(env.sys, state)[TARGET]
solution = (state.con_jac.T[:, limit] * -b / a)[TARGET]
print(f"target 0.01 m beyond its limit: force {force:.2f} N, least squares say {solution:.2f} N")
assert longest == 99 and force == 0 and solution < -0.05
PYTHON
