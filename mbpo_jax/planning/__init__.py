"""Planners of action sequences, by sampling and by linear-quadratic expansion."""
