"""The verb `sweep`: many runs, a few programs."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from mbpo_jax.cli.common import set_up_compilation_cache
from mbpo_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train all runs that a file asks for, or go on with them: the same command goes on.

    Runs that differ in seeds and numbers alone are trained by one program. docs/sweeps.md says what
    a file holds.
    """

    source: Annotated[Positional[Path], arg(metavar="FILE_OR_DIR")]
    """YAML file of a sweep; or a sweep's directory, to go on with what is in it."""
    out: Path | None = None
    """Directory of the sweep; below sweeps/, named after the file, if unset."""
    dry_run: bool = False
    """Print the groups, their runs, memory and time, and train nothing."""
    retry: bool = False
    """Try groups again that failed three times."""
    group: str | None = None
    """Train one group of a sweep's directory in this process; this is what workers do."""

    def run(self) -> int:
        """Drive the sweep, or train one group."""
        if self.group is None:
            from mbpo_jax.sweeps.sweep import sweep

            return sweep(self.source, self.out, self.dry_run, self.retry)
        if self.out is not None or self.dry_run or self.retry:
            raise ConfigError("--group takes a sweep's directory and no other option")
        set_up_compilation_cache()
        from mbpo_jax.sweeps.worker import train_unit

        return train_unit(self.source, self.group)
