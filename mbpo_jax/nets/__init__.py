"""Networks, distributions and input scaling."""
