"""Which gradient estimator to trust, on a problem or on what a run has learned."""
