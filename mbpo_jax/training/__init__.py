"""Training: the compiled step, and the host that drives it, watches it and keeps its records."""
