"""Gradient estimators through what runs have learned; parts of `gradient_estimators`."""

import dataclasses
from collections.abc import Iterator

import jax

from experiments import common
from mbpo_jax.config import StudyConfig
from mbpo_jax.files import Row
from mbpo_jax.laboratory import commands
from mbpo_jax.laboratory.measures.inspection import stability_rows
from mbpo_jax.laboratory.measures.study import study
from mbpo_jax.presets import environment_preset

NAME = "gradient_estimators"
RUN_HORIZONS = (1, 2, 3, 5, 10, 20)
RUN_COLUMNS = (
    *("problem", "estimator", "estimand", "biased_by_design", "horizon", "batch_size", "batches"),
    *("reference", "reference_norm", "reference_error", "variance", "variance_interval"),
    *("snr_db", "squared_bias", "squared_bias_interval", "mean_squared_error", "cosine"),
    *("heavy_tailed", "overflowed", "median_of_means_variance", "model_evaluations", "vjps"),
    *("flops", "seconds", "error_at_equal_flops", "true_squared_norm", "split_total"),
    *("split_model_bias", "split_estimator_bias", "split_cross", "split_variance"),
    *("split_model_bias_error", "split_estimator_bias_error", "split_cross_error"),
    "split_variance_error",
)


def trained(entry: common.Entry) -> commands.RunProblems:
    """Train a run, or take the one that is there, and return its problems."""
    if common.train(NAME, [entry]):
        raise SystemExit("training did not end")
    return commands.load_problems(common.run_directory(NAME, entry), 0, 0, from_replay=False)


def trained_run(environment: str) -> Iterator[Row]:
    """All estimators in the ensemble of a trained MBPO run, against the true system."""
    entry = common.Entry(environment, "MBPO", common.as_published(environment_preset(environment)))
    with jax.enable_x64(False):  # as it was trained
        problems = trained(entry)
        assert problems.learned is not None
        config = StudyConfig(
            estimators=("all",),
            horizons=RUN_HORIZONS,
            batch_sizes=(16,),
            batches=64,
            reference_batches=128,
            resamples=200,
        )
        for row in study(problems.learned, config, true=problems.true, announce=print):
            yield {name: row[name] for name in RUN_COLUMNS}
        if problems.true is not None:
            two = dataclasses.replace(config, estimators=("rp", "lr", "lr_value"))
            for row in study(problems.true, two, announce=print):
                yield {name: row.get(name) for name in RUN_COLUMNS}


def spectral_norm() -> Iterator[Row]:
    """Part 8: pathwise gradients through ensembles with and without spectral normalisation."""
    plain = common.as_published(environment_preset("pendulum"))
    for normalised in (False, True):
        ensemble = dataclasses.replace(plain.ensemble, spectral_norm=normalised)
        label = "MBPO spectral norm" if normalised else "MBPO"
        entry = common.Entry("pendulum", label, dataclasses.replace(plain, ensemble=ensemble))
        with jax.enable_x64(False):
            problems = trained(entry)
            assert problems.learned is not None
            config = StudyConfig(
                estimators=("rp",), horizons=(1, 2, 5, 10, 20, 40), batches=64, resamples=200
            )
            rows = study(problems.learned, config, true=problems.true)
            growth = stability_rows(problems.learned, max(config.horizons), config)
            for row in rows:
                known = growth[row["horizon"] - 1]
                yield {
                    "spectral_norm": normalised,
                    **{name: row[name] for name in RUN_COLUMNS},
                    **{name: known[name] for name in ("mean_exponent", "moment_exponent")},
                }
