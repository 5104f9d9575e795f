"""Policy-gradient estimators, and problems whose gradients are known."""
