"""Environments in which other libraries run, with packages that this project does not have."""

import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

from benchmarks.worker import REPOSITORY


class PeerEnvironment(NamedTuple):
    """A virtual environment, built once with pip, whose settings say where packages come from.

    Attributes:
      name: of the folder below `.benchmarks/`.
      packages: pinned, installed with what they need.
      alone: installed after them without what they need, as their own pins are too old.
    """

    name: str
    packages: tuple[str, ...]
    alone: tuple[str, ...]

    def python(self) -> Path:
        """Return its interpreter, building the environment when it is new or has changed.

        Raises:
          CalledProcessError: pip failed.
        """
        folder = REPOSITORY / ".benchmarks" / self.name
        python = folder / "bin" / "python"
        recipe = "\n".join((*self.alone, *self.packages))
        stamp = folder / "recipe.txt"  # written last: a half-built environment has none
        if stamp.exists() and stamp.read_text() == recipe:
            return python
        print(f"building {folder} (once, some minutes)", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        install = (str(python), "-m", "pip", "install", "--quiet")
        subprocess.run((*install, *self.packages), check=True, stdout=sys.stderr)
        subprocess.run((*install, "--no-deps", *self.alone), check=True, stdout=sys.stderr)
        stamp.write_text(recipe)
        return python

    def python_or_exit(self) -> Path:
        """Return `python`, or end the program with what is missing."""
        try:
            return self.python()
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"cannot build the environment of {self.name}: {error}\n"
                "It needs Python's venv module and a package index that pip can reach."
            )
