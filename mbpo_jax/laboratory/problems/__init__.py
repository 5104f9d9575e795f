"""Returns whose gradients are estimated: with known gradients, of systems, of trained runs."""
