"""Run the command line: `python -m mbpo_jax`."""

import sys

from mbpo_jax.cli import main

sys.exit(main())
