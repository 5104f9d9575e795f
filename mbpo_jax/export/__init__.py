"""Policies that leave the framework, as files that run without it."""

from mbpo_jax.export.policy import NUM_OBSERVATIONS, ExportError, Format, export_policy

__all__ = ["NUM_OBSERVATIONS", "ExportError", "Format", "export_policy"]
