"""Policies that leave the framework, as files that run without it."""

from mbpo_jax.export.policy import ExportError, export_policy

__all__ = ["ExportError", "export_policy"]
