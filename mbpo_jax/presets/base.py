"""What a preset is."""

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """A named change of the configuration.

    Attributes:
      summary: one line for `mbpo-jax presets`.
      changes: values by field name, nested as `Config` is.
    """

    summary: str
    changes: dict[str, Any]
