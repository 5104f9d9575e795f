"""Policy-gradient estimators."""
