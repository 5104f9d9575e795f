"""The program: `mbpo-jax`, or `python -m mbpo_jax`."""

import sys

from mbpo_jax import signals


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    signals.answer()  # before anything that takes long to load
    from mbpo_jax import cli

    code = cli.main()
    signals.settle(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
