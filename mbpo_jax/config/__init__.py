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
from mbpo_jax.config.estimators import (
    ESTIMATORS,
    EstimatorConfig,
    EstimatorRecord,
    Need,
    estimator_readers,
    estimator_uses,
    named,
    unread_setting,
    unread_settings,
)
from mbpo_jax.config.laboratory import StudyConfig, TrackingConfig
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
from mbpo_jax.config.problems import PROBLEMS, ProblemRecord
from mbpo_jax.config.reading import chosen_by, read_settings, refuse_unread, unread, unread_as_set
from mbpo_jax.config.run import CONFIG_CLASSES, ENDS, MEMORY_FIELDS, Config, register_pytrees
from mbpo_jax.fields import file_name

__all__ = [
    "ALGORITHMS",
    "CONFIG_CLASSES",
    "ENDS",
    "ESTIMATORS",
    "MEMORY_FIELDS",
    "PROBLEMS",
    "AlgorithmRecord",
    "Config",
    "DynaConfig",
    "EnsembleConfig",
    "EnvConfig",
    "EstimatorConfig",
    "EstimatorRecord",
    "ExpansionConfig",
    "FitConfig",
    "ILQRConfig",
    "Need",
    "PlannerConfig",
    "PolicySearchConfig",
    "ProblemRecord",
    "Propagation",
    "RetraceConfig",
    "RolloutConfig",
    "SACConfig",
    "StudyConfig",
    "TabularConfig",
    "TrackingConfig",
    "actor_critics",
    "algorithm_record",
    "chosen_by",
    "estimator_readers",
    "estimator_uses",
    "file_name",
    "named",
    "read_settings",
    "readers",
    "reads",
    "refuse_unread",
    "register_pytrees",
    "unread",
    "unread_as_set",
    "unread_setting",
    "unread_settings",
]
