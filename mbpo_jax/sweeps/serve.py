"""The report of a sweep, live: made anew while the sweep runs, and shown to this machine alone."""

import http.server
import threading
import time
from functools import partial
from pathlib import Path

from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.sweeps.results import REPORT, write_report

HOST = "127.0.0.1"
REFRESH = 15
"""Seconds after which a browser asks again, and before which no new report is made."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a sweep's directory; what is asked for as `/` is the report, brought up to date."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.path.partition("?")[0] not in ("/", f"/{REPORT}"):
            super().do_GET()
            return
        try:
            text = _current_report(Path(self.directory))
        except (UserError, OSError) as error:
            self.send_error(http.HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
            return
        page = text.replace(
            "<meta charset=utf-8>",
            f"<meta charset=utf-8><meta http-equiv=refresh content={REFRESH}>",
            1,
        ).encode()
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


_writing = threading.Lock()


def _current_report(sweep_dir: Path) -> str:
    """Return the report, made anew if it is old; browsers that ask at once share one."""
    path = sweep_dir / REPORT
    with _writing:
        if not path.exists() or time.time() - path.stat().st_mtime > REFRESH:
            write_report(sweep_dir)
        return path.read_text()


def make_server(sweep_dir: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of a sweep's report on loopback; 0 lets the system choose the port.

    Raises:
      ConfigError: it is no sweep directory, or the port is taken.
    """
    write_report(sweep_dir)
    handler = partial(Handler, directory=str(sweep_dir))
    try:
        return http.server.ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port: cannot use {port}: {error}; choose another --port") from error


def serve(sweep_dir: Path, port: int) -> int:
    """Show a sweep's report until Ctrl-C.

    Raises:
      ConfigError: as `make_server`.
    """
    with make_server(sweep_dir, port) as server:
        print(f"see http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
