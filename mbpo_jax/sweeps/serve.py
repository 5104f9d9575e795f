"""The report of a sweep, live: made anew while the sweep runs, and shown to this machine alone.

Other pages that a browser has open, and whoever guesses addresses, get nothing: a request has to
name this machine as its host, answers are the report and the files of `SHOWN` of its groups, and
what the browser gets may load nothing and is shown in no other page.
"""

import html
import http.server
import ipaddress
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.reports.page import NO_REQUESTS
from mbpo_jax.sweeps.results import REPORT, write_report
from mbpo_jax.sweeps.store import GROUPS, OUTPUT
from mbpo_jax.training import logs, run_directory
from mbpo_jax.training.trackers.follower import FIGURES

HOST = "127.0.0.1"
REFRESH = 15
"""Seconds after which a browser asks again, and before which no new report is made."""
TIMEOUT = 10.0
"""Seconds within which a client has to send its request, and to take each part of the answer."""
HTML, TEXT, PNG = "text/html; charset=utf-8", "text/plain; charset=utf-8", "image/png"
SHOWN = {
    **dict.fromkeys((run_directory.STATUS, run_directory.CONFIG, run_directory.RUNS), TEXT),
    **dict.fromkeys((run_directory.ENVIRONMENT, OUTPUT, *logs.ROW_FILES), TEXT),
    **dict.fromkeys((*FIGURES, "episode.png"), PNG),
    "rollout.webp": "image/webp",
}
"""Files of a group that are shown, and their types."""
HEADERS = {
    "Content-Security-Policy": (
        f"{NO_REQUESTS}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request; nothing that a client does is written to the terminal."""

    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Answer with the report, brought up to date, or with something of a group."""
        if not self._names_this_machine():
            self.send_error(HTTPStatus.FORBIDDEN, explain="only localhost and its addresses")
            return
        assert isinstance(self.server, Server)
        try:
            found = self.server.answer(urllib.parse.urlsplit(self.path).path)
        except ValueError:  # as of an address with half a bracket
            found = None
        except (UserError, OSError) as error:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
            return
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, content = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Answer all other methods: nothing can be changed."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return lambda: self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def _names_this_machine(self) -> bool:
        """Return whether a request asks for this machine by its own name.

        Another name may belong to a page that points it here, which then reads what it gets.
        """
        try:
            (host,) = self.headers.get_all("Host", [])
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def end_headers(self) -> None:
        """Add what holds for every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, without the versions of what runs here."""
        self.send_response_only(code, message)
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


class Server(http.server.ThreadingHTTPServer):
    """A server of one sweep's report."""

    def __init__(self, sweep_dir: Path, port: int, report: str) -> None:
        self._sweep_dir, self._groups = sweep_dir, sweep_dir.resolve() / GROUPS
        self._writing = threading.Lock()
        self._keep(report)
        super().__init__((HOST, port), Handler)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Return type and content of what is asked for, None if it is not shown.

        Raises:
          UserError, OSError: it cannot be read.
        """
        parts = urllib.parse.unquote(path).split("/")
        if parts in (["", ""], ["", REPORT]):
            return HTML, self._current_report()
        if parts[:2] != ["", GROUPS] or len(parts) != 4:
            return None
        group, name = parts[2:]
        files = self._files_of(group)
        if name:
            return (SHOWN[name], files[name].read_bytes()) if name in files else None
        links = "".join(f"<li><a href='{each}'>{each}</a>" for each in files)
        head = "<!doctype html><html lang=en><meta charset=utf-8><link rel=icon href='data:,'>"
        title = html.escape(group)
        page = f"{head}<title>{title}</title><h1>{title}</h1><ul>{links}</ul></html>"
        return (HTML, page.encode()) if files else None

    def _files_of(self, group: str) -> dict[str, Path]:
        """Return the files of a group that are shown; none of those that links lead elsewhere."""
        known = {path.name for path in self._groups.iterdir() if not path.name.startswith(".")}
        paths = {name: self._groups / group / name for name in SHOWN if group in known}
        return {n: path for n, path in paths.items() if path.is_file() and path.resolve() == path}

    def _current_report(self) -> bytes:
        """Return the report, made anew if it is old; browsers that ask at once share one."""
        with self._writing:
            if time.monotonic() - self._made > REFRESH:
                self._keep(write_report(self._sweep_dir).read_text())
            return self._report

    def _keep(self, report: str) -> None:
        again = f"<meta charset=utf-8><meta http-equiv=refresh content={REFRESH}>"
        self._report = report.replace("<meta charset=utf-8>", again, 1).encode()
        self._made = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that leave; of a fault of ours, say in a line what it is."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"mbpo-jax: no answer: {type(error).__name__}: {error}", file=sys.stderr)


def make_server(sweep_dir: Path, port: int) -> Server:
    """Return a server of a sweep's report on loopback; 0 lets the system choose the port.

    Raises:
      ConfigError: it is no sweep directory, or the port is taken.
    """
    report = write_report(sweep_dir).read_text()
    try:
        return Server(sweep_dir, port, report)
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
