"""What is drawn of a run directory."""

from collections.abc import Collection
from pathlib import Path

from mbpo_jax.config import Config
from mbpo_jax.files import read_rows
from mbpo_jax.laboratory.report.over_training import tracking_figure
from mbpo_jax.reports.figures import save_figure
from mbpo_jax.reports.model_error import model_error_figure
from mbpo_jax.reports.plots import error_curves, learning_curve_figure
from mbpo_jax.training import logs, run_directory


def draw_figures(config: Config, run_dir: Path, figure_format: Collection[str] = ()) -> None:
    """Draw the learning curve and, where they were measured, the model's and gradients' errors.

    Args:
      config: of the runs.
      run_dir: with their rows.
      figure_format: formats besides PNG.
    """
    evals, metrics, gradients = (
        read_rows(path) if (path := run_dir / name).exists() else [] for name in logs.ROW_FILES
    )
    title = f"{config.title} on {config.env.name} ({config.env.backend})"
    figures = {}
    if evals:
        figures["curve"] = learning_curve_figure(evals, metrics, title, config.stop_at_return)
    if error_curves(metrics):
        observed = run_directory.read_environment(run_dir).get("observed", [])
        figures["model_error"] = model_error_figure(metrics, title, observed)
    if gradients:
        figures["gradients"] = tracking_figure(gradients, title)
    for name, figure in figures.items():
        save_figure(run_dir / f"{name}.png", figure, figure_format)
