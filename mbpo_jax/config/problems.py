"""The gradient laboratory's problems: one record of each."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class ProblemRecord:
    """What is known of a problem without loading it.

    Attributes:
      summary: what it is, in a line.
      maker: import path of the function that makes it, whose arguments are its settings: numbers
        with defaults.
    """

    summary: str
    maker: str


_CLOSED_FORM = "mbpo_jax.laboratory.problems.closed_form"
_SYSTEMS = "mbpo_jax.laboratory.problems.systems"

PROBLEMS: Mapping[str, ProblemRecord] = {
    "quadratic": ProblemRecord(
        "one step, the square of a normal variable", f"{_CLOSED_FORM}:make_quadratic_problem"
    ),
    "cosine": ProblemRecord(
        "one step, as good as chaotic at high frequency", f"{_CLOSED_FORM}:make_cosine_problem"
    ),
    "heaviside": ProblemRecord(
        "one step, as steep as its width is small", f"{_CLOSED_FORM}:make_heaviside_problem"
    ),
    "lq": ProblemRecord(
        "a scalar linear system with quadratic costs", f"{_CLOSED_FORM}:make_scalar_lq_problem"
    ),
    "lq_noisy": ProblemRecord(
        "the same with a noisy system", f"{_CLOSED_FORM}:make_noisy_scalar_lq_problem"
    ),
    "lq_3d": ProblemRecord(
        "a noisy linear system of 3 states and 2 controls", f"{_CLOSED_FORM}:make_lq_3d_problem"
    ),
    "chaotic_rnn": ProblemRecord(
        "two neurons, chaotic from a gain beta of about 3",
        f"{_CLOSED_FORM}:make_chaotic_rnn_problem",
    ),
    "pendulum": ProblemRecord(
        "swing-up under a small network", f"{_SYSTEMS}:make_pendulum_problem"
    ),
    "cartpole": ProblemRecord(
        "swing-up of a pole on a cart, under a network", f"{_SYSTEMS}:make_cartpole_problem"
    ),
    "double_pendulum": ProblemRecord(
        "swing-up of two links under a network", f"{_SYSTEMS}:make_double_pendulum_problem"
    ),
    "double_pendulum_fall": ProblemRecord(
        "chaotic fall of two links from a random state",
        f"{_SYSTEMS}:make_double_pendulum_fall_problem",
    ),
    "pushing": ProblemRecord(
        "a block pushed through a stiff spring", f"{_SYSTEMS}:make_pushing_problem"
    ),
}
