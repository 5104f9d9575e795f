"""Configuration as frozen dataclasses, validated on construction.

A `float` field, and a whole number marked `DATA`, is *data*: inside the compiled step it is a
traced array, so it can differ between runs of one program. Every other field, and a float marked
`STRUCTURAL`, is *structure*: it decides shapes and loop bounds, and a change of it compiles anew.
`register_pytrees` tells JAX so.

Nothing here imports JAX, because `mbpo-jax --help` has to answer at once.
"""

from mbpo_jax.config.algorithms import (
    ALGORITHMS,
    AlgorithmRecord,
    actor_critics,
    algorithm_record,
    name_problem,
    readers,
    reads,
)
from mbpo_jax.config.components import (
    EnsembleConfig,
    EnvConfig,
    FitConfig,
    RolloutConfig,
    SACConfig,
)
from mbpo_jax.config.laboratory import (
    ESTIMATOR_SUMMARIES,
    PROBLEM_SUMMARIES,
    EstimatorConfig,
    StudyConfig,
    TrackingConfig,
)
from mbpo_jax.config.methods import (
    DynaConfig,
    ExpansionConfig,
    ILQRConfig,
    PlannerConfig,
    PolicySearchConfig,
    Propagation,
    RetraceConfig,
    TabularConfig,
)
from mbpo_jax.config.run import CONFIG_CLASSES, ENDS, MEMORY_FIELDS, Config, register_pytrees
from mbpo_jax.fields import file_name

__all__ = [
    "ALGORITHMS",
    "CONFIG_CLASSES",
    "ENDS",
    "ESTIMATOR_SUMMARIES",
    "MEMORY_FIELDS",
    "PROBLEM_SUMMARIES",
    "AlgorithmRecord",
    "Config",
    "DynaConfig",
    "EnsembleConfig",
    "EnvConfig",
    "EstimatorConfig",
    "ExpansionConfig",
    "FitConfig",
    "ILQRConfig",
    "PlannerConfig",
    "PolicySearchConfig",
    "Propagation",
    "RetraceConfig",
    "RolloutConfig",
    "SACConfig",
    "StudyConfig",
    "TabularConfig",
    "TrackingConfig",
    "actor_critics",
    "algorithm_record",
    "file_name",
    "name_problem",
    "readers",
    "reads",
    "register_pytrees",
]
