"""Scripts that reproduce published figures, one each; their raw results lie in `results/`."""
