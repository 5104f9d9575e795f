"""A campaign of faults against training, its files and its configurations; see `__main__`."""
