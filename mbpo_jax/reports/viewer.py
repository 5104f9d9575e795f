"""One HTML file that plays an episode in Brax's viewer, in any browser, without a network."""

import base64
import html
import json
import re
import zlib
from pathlib import Path
from string import Template

from mbpo_jax.envs import brax_viewer
from mbpo_jax.files import replacing

ASSETS = Path(__file__).parent / "viewer_assets"

LIBRARIES = {
    "three": "three.module.min.js",
    "three/addons/controls/OrbitControls.js": "OrbitControls.min.js",
    "lilgui": "lil-gui.esm.min.js",
}
"""Modules that Brax's viewer imports, by the name it uses, and our copies of them."""

_RELATIVE_IMPORT = re.compile(r"""(\bfrom\s*['"])\./""")


def write_html(path: Path, system_json: str, title: str) -> None:
    """Write a page that shows an episode; a reader never sees it half written.

    Args:
      path: the file to write.
      system_json: what `brax_viewer.viewer_json` returned.
      title: shown above the picture.
    """
    page = Template((ASSETS / "viewer.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        notices=(ASSETS / "THIRD_PARTY.md").read_text(encoding="utf-8"),
        import_map=json.dumps({"imports": _modules()}),
        system=base64.b64encode(zlib.compress(system_json.encode())).decode(),
    )
    with replacing(path) as file:
        file.write(page.encode())


def _modules() -> dict[str, str]:
    """Map every module name the page imports to a data URL that holds its source."""
    sources = {name: (ASSETS / file).read_text("utf-8") for name, file in LIBRARIES.items()}
    for name, source in brax_viewer.viewer_scripts().items():
        # A data URL has no folder, so what lies next to a module needs a name of its own.
        sources[f"brax/{name}"] = _RELATIVE_IMPORT.sub(r"\1brax/", source)
    return {name: _data_url(source) for name, source in sources.items()}


def _data_url(source: str) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(source.encode()).decode()}"
