"""Faults that are put in on purpose: what a framework has to stand without losing anything."""
