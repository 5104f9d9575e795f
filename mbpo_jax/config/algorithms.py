"""The algorithms' names, each with what it does and its source."""

from typing import Literal

AlgorithmName = Literal[
    "sac",
    "mbpo",
    "dyna",
    "mba",
    "mve",
    "steve",
    "svg",
    "retrace",
    "pg",
    "bptt",
    "mpc",
    "ilqr",
    "dyna_q",
    "dyna_q_plus",
    "prioritized_sweeping",
]

SUMMARIES: dict[str, str] = {
    "sac": "soft actor-critic on replay alone (Haarnoja et al. 2018, arXiv:1812.05905)",
    "mbpo": "SAC on short model rollouts branched anywhere (Janner et al. 2019, arXiv:1906.08253)",
    "dyna": "real updates, then model updates, at each step (Sutton 1990, generalised)",
    "mba": "SAC on model rollouts from recent states (Gu et al. 2016, arXiv:1603.00748)",
    "mve": "critics on values expanded by H model steps (Feinberg et al. 2018, arXiv:1803.00101)",
    "steve": "MVE's depths weighted by their agreement (Buckman et al. 2018, arXiv:1807.01675)",
    "svg": "policy improved through H model steps (Heess et al. 2015; Amos et al. 2021)",
    "retrace": "critics on returns of replay sequences (Munos et al. 2016, arXiv:1606.02647)",
    "pg": "likelihood-ratio policy gradient on long model rollouts (Williams 1992; version 2.5)",
    "bptt": "backpropagation through model and policy (Heess et al. 2015; version 2.0)",
    "mpc": "replanning by CEM, iCEM, MPPI or random shooting (Chua et al. 2018; version 1.5)",
    "ilqr": "iterative LQR with time-varying linear feedback (Li and Todorov 2004)",
    "dyna_q": "tabular Q-learning and planning steps (Sutton and Barto 2018, section 8.2)",
    "dyna_q_plus": "Dyna-Q with a bonus for what was long not tried (ibid., section 8.3)",
    "prioritized_sweeping": "planning where values change most (Moore and Atkeson 1993)",
}
"""One line for each algorithm."""

MODEL_BASED = ("mbpo", "dyna", "mba", "mve", "steve", "svg", "pg", "bptt", "mpc", "ilqr")
"""Algorithms with a dynamics model, learned or the true one."""

ACTOR_CRITIC = ("sac", "mbpo", "dyna", "mba", "mve", "steve", "svg", "retrace")
"""Algorithms that train SAC's policy and critics."""

BRANCHED = ("mbpo", "dyna", "mba")
"""Algorithms that keep model transitions of branched rollouts."""

DIFFERENTIATES_MODEL = ("svg", "bptt", "ilqr")
"""Algorithms that take derivatives of the model."""

TABULAR = ("dyna_q", "dyna_q_plus", "prioritized_sweeping")
"""Algorithms for environments with numbered states and moves."""
