"""The settings of a training run as a whole."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Le

from mbpo_jax.config.algorithms import ALGORITHMS, actor_critics, algorithm_record
from mbpo_jax.config.components import (
    EnsembleConfig,
    EnvConfig,
    FitConfig,
    RolloutConfig,
    SACConfig,
    SharedRolloutConfig,
)
from mbpo_jax.config.estimators import ESTIMATORS, EstimatorConfig
from mbpo_jax.config.laboratory import TrackingConfig
from mbpo_jax.config.methods import (
    DynaConfig,
    ExpansionConfig,
    ILQRConfig,
    PlannerConfig,
    PolicySearchConfig,
    RetraceConfig,
    TabularConfig,
)
from mbpo_jax.fields import (
    STRUCTURAL,
    Checked,
    NonNegative,
    Positive,
    Runs,
    field_types,
    is_data,
)
from mbpo_jax.import_paths import name_problem

ENDS = ("total_env_steps", "stop_at_return")
"""Settings of when a run ends, which change nothing of it until then."""

MEMORY_FIELDS = (
    "replay_capacity or, for mbpo and its like, rollout.retain_epochs, rollout.max_length or "
    "rollout.rollouts_per_step; and batch sizes"
)
"""What makes a run smaller, besides fewer seeds; for messages."""


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """Everything that decides a training run."""

    algorithm: str = "mbpo"
    """What is trained; see the list above. `module:function` makes one of your own."""
    model: Literal["learned", "oracle"] = "learned"
    """What predicts: the ensemble, or the true system in its place."""
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    """Seed of the first run; run i has seed + i, modulo 2^32."""
    num_seeds: Runs = 1
    """Runs in one program."""
    total_env_steps: Positive = 5000
    """Environment steps of a run, the random ones included."""
    random_steps: NonNegative = 500
    """Steps with uniformly random actions before anything is trained. A tabular algorithm, which
    updates from the newest transition alone, learns nothing from them."""
    steps_per_fit: Positive = 250
    """Environment steps between two fits of the model (F); one call of the compiled step."""
    epoch_length: Positive = 250
    """Environment steps in an epoch, the unit of the rollout schedule."""
    replay_capacity: Positive = 1_000_000
    """Most environment transitions to keep; never more than `total_env_steps` are allocated."""
    eval_every: Positive = 250
    """Environment steps between evaluations; the first one is made before training."""
    eval_episodes: Positive = 10
    """Episodes in an evaluation, played with the deterministic policy."""
    checkpoint_every: Positive = 1000
    """Environment steps between checkpoints."""
    stop_at_return: Annotated[float, STRUCTURAL] | None = None
    """End early once every run reached this mean return in two evaluations in a row."""
    track_gradients: NonNegative = 0
    """Measure gradient estimators at every so many evaluations; never if 0."""
    env: EnvConfig = EnvConfig()
    sac: SACConfig = SACConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    fit: FitConfig = FitConfig()
    rollout: RolloutConfig = RolloutConfig()
    dyna: DynaConfig = DynaConfig()
    expansion: ExpansionConfig = ExpansionConfig()
    retrace: RetraceConfig = RetraceConfig()
    policy_search: PolicySearchConfig = PolicySearchConfig()
    planner: PlannerConfig = PlannerConfig()
    ilqr: ILQRConfig = ILQRConfig()
    tabular: TabularConfig = TabularConfig()
    tracking: TrackingConfig = TrackingConfig()
    estimator: EstimatorConfig = EstimatorConfig()

    def _rule_errors(self) -> list[str]:
        if problem := name_problem(self.algorithm, ALGORITHMS):
            return [f"algorithm: {problem}"]
        record, errors = algorithm_record(self.algorithm), []
        if self.total_env_steps <= self.random_steps:
            errors.append(
                f"total_env_steps: {self.total_env_steps} leaves nothing to train on after "
                f"random_steps ({self.random_steps}); raise it, or lower random_steps"
            )
        elif over := (self.total_env_steps - self.random_steps) % self.steps_per_fit:
            below = self.total_env_steps - over
            near = f"{below} or " if below > self.random_steps else ""
            errors.append(
                f"total_env_steps: {self.total_env_steps} is not random_steps "
                f"({self.random_steps}) and a multiple of steps_per_fit ({self.steps_per_fit}), "
                f"after which the host first sees the run again; use {near}"
                f"{below + self.steps_per_fit}"
            )
        if self.replay_capacity < self.steps_per_fit:
            errors.append(
                f"replay_capacity: {self.replay_capacity} is below steps_per_fit "
                f"({self.steps_per_fit}), so transitions would be lost before they are used"
            )
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) % self.steps_per_fit:
                errors.append(
                    f"{name}: {getattr(self, name)} is no multiple of steps_per_fit "
                    f"({self.steps_per_fit}), after which the host first sees the run again"
                )
        if self.model == "oracle" and not record.has_model:
            errors.append(
                f"model: {self.algorithm} has no model, so 'oracle' changes nothing; leave it out"
            )
        if self.algorithm == "prioritized_sweeping" and self.tabular.planning_steps == 0:
            errors.append(
                "tabular.planning_steps: prioritized_sweeping learns by planning alone; use 1 or "
                "more"
            )
        if self.track_gradients and not record.is_actor_critic:
            errors.append(
                f"track_gradients: {self.algorithm} has no actor and critic; leave it out, or use "
                f"one of: {', '.join(actor_critics())}"
            )
        if self.learns_model:
            errors += self._model_errors()
        if record.branches:
            errors += self._branching_errors()
        return errors

    @property
    def title(self) -> str:
        """Return the algorithm's name as a figure has it."""
        return algorithm_record(self.algorithm).title

    @property
    def num_chunks(self) -> int:
        """Return how often the compiled step is called."""
        return (self.total_env_steps - self.random_steps) // self.steps_per_fit

    @property
    def replay_rows(self) -> int:
        """Return how many real transitions are kept: no more than the run makes."""
        return min(self.replay_capacity, self.total_env_steps)

    @property
    def learns_model(self) -> bool:
        """Whether an ensemble is fitted."""
        return algorithm_record(self.algorithm).has_model and self.model == "learned"

    @property
    def differentiates_model(self) -> bool:
        """Whether derivatives of the model are taken, as far as is known without loading more."""
        record = algorithm_record(self.algorithm)
        estimator = ESTIMATORS.get(self.policy_search.gradient)
        by_estimator = estimator and estimator.differentiates and "policy_search" in record.uses
        return record.differentiates_model or bool(by_estimator)

    def _model_errors(self) -> list[str]:
        errors = []
        layers, decays = len(self.ensemble.hidden_sizes) + 1, len(self.fit.weight_decays)
        if layers != decays:
            errors.append(
                f"fit.weight_decays: {decays} values for {layers} layers (hidden layers and output)"
            )
        if self.random_steps < 2:
            errors.append(
                f"random_steps: {self.random_steps}; a model needs at least 2 transitions, one of "
                "them held out; raise it"
            )
        planner, num_elites = self.planner, self.ensemble.num_elites
        if (
            self.algorithm == "mpc"
            and planner.propagation == "trajectory"
            and planner.num_particles % num_elites
        ):
            errors.append(
                f"planner.num_particles: {planner.num_particles} is no multiple of "
                f"ensemble.num_elites ({num_elites}), so plans would not all meet the same "
                "members; use a multiple, or planner.propagation=step"
            )
        return errors

    def _branching_errors(self) -> list[str]:
        errors, refreshes = [], self.rollout.refreshes_per_fit
        if self.rollout.truncation != "none":
            if self.model == "oracle":
                errors.append(
                    f"rollout.truncation: {self.rollout.truncation}, but the true system has no "
                    "members that could disagree; leave it out"
                )
            elif self.ensemble.num_elites < 2:
                errors.append(
                    f"rollout.truncation: {self.rollout.truncation} compares elites, and there is "
                    "one; raise ensemble.num_elites"
                )
        if self.steps_per_fit % refreshes:
            errors.append(
                f"rollout.refreshes_per_fit: {refreshes} does not divide steps_per_fit "
                f"({self.steps_per_fit}), so rollouts would not start at even distances"
            )
        elif self.steps_per_fit // refreshes > self.rollout.retain_epochs * self.epoch_length:
            errors.append(
                f"rollout.retain_epochs: {self.rollout.retain_epochs} epochs of "
                f"{self.epoch_length} steps hold less than the rollouts that are started at once "
                f"({self.steps_per_fit // refreshes} steps); raise it, epoch_length, or "
                "rollout.refreshes_per_fit"
            )
        return errors


CONFIG_CLASSES = (
    EnvConfig,
    SACConfig,
    EnsembleConfig,
    FitConfig,
    RolloutConfig,
    DynaConfig,
    ExpansionConfig,
    RetraceConfig,
    PolicySearchConfig,
    PlannerConfig,
    ILQRConfig,
    TabularConfig,
    TrackingConfig,
    EstimatorConfig,
    Config,
)


def register_pytrees() -> None:
    """Register every config class with JAX: data fields are leaves, structure is static."""
    import jax

    for cls in CONFIG_CLASSES:
        types = field_types(cls)
        data = [name for name in types if is_data(types[name])]
        structure = [name for name in types if not is_data(types[name])]
        if cls is RolloutConfig:
            _register_rollout(data, structure)
        else:
            jax.tree_util.register_dataclass(cls, data, structure)


def _register_rollout(data: Sequence[str], structure: Sequence[str]) -> None:
    """Register the one class whose structure depends on data: on what there is room for.

    As an array `max_length` would not tell it any more, so with arrays it is the shared kind.
    """
    import jax

    def flatten(config: RolloutConfig):
        leaves = [(jax.tree_util.GetAttrKey(name), getattr(config, name)) for name in data]
        return leaves, (config.longest, *(getattr(config, name) for name in structure))

    def unflatten(aside, leaves):
        longest, *fixed = aside
        values = dict(zip((*structure, *data), (*fixed, *leaves), strict=True))
        if isinstance(values["max_length"], int):
            return RolloutConfig(**values)
        return SharedRolloutConfig(**values, longest=longest)

    for cls in (RolloutConfig, SharedRolloutConfig):
        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
