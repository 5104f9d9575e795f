"""Learned dynamics: the probabilistic ensemble, its fit, and rollouts through it."""
