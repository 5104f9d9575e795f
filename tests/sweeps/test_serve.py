"""The report as it is served: real sockets on loopback, and what a browser makes of it."""

import contextlib
import http.client
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from mbpo_jax.errors import ConfigError
from mbpo_jax.files import append_rows
from mbpo_jax.reports.page import NO_REQUESTS
from mbpo_jax.sweeps import serve, store
from tests.browser import chromium, opened
from tests.sweeps.processes import TINY, laid_out


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory) -> Path:
    """Make a sweep of one group, with a neighbour that is nobody's business."""
    folder = tmp_path_factory.mktemp("served")
    (unit,) = laid_out(folder / "sweep", {**TINY, "algorithms": ["sac"]})
    for step in (0, 100, 200):
        rows = [{"env_steps": step, "run": i, "seed": i, "return_mean": step} for i in range(3)]
        append_rows(unit.path / "evals.jsonl", [{**row, "wall_seconds": 1.0} for row in rows])
    (folder / "secret.txt").write_text("secret")
    (unit.path / "secret.txt").write_text("secret")
    (unit.path / "output.txt").symlink_to(folder / "secret.txt")
    os.mkfifo(unit.path / "curve.png")
    return folder / "sweep"


@pytest.fixture(scope="module")
def server(sweep_dir):
    with serve.make_server(sweep_dir, 0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server, path="/", method="GET", **headers) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def raw(server, words: bytes) -> bytes:
    with socket.create_connection(server.server_address, timeout=20) as connection:
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(2**16):
            found += part
        return found


def test_the_report_and_the_files_of_a_group_are_shown_to_this_machine(server, sweep_dir):
    assert server.server_address[0] == "127.0.0.1"
    (unit,) = store.units_of(sweep_dir)
    group = f"/groups/{unit.name}"
    for path in ("/", "/report.html", "/?again=1"):
        answer, page = ask(server, path)
        assert answer.status == 200
        assert b"http-equiv=refresh" in page
        assert f"href='{group[1:]}/'".encode() in page
    answer, page = ask(server, f"{group}/")
    assert (answer.status, page.count(b"<li>")) == (200, 3)
    answer, found = ask(server, f"{group}/config.yaml")
    assert found == (unit.path / "config.yaml").read_bytes()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    head, nothing = ask(server, f"{group}/config.yaml", "HEAD")
    assert (head.headers["Content-Length"], nothing) == (str(len(found)), b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/groups", "/groups/", "/sweep.yaml", "/.lock", "/nothing", "/report.html/"),
        *("/../secret.txt", "/%2e%2e/secret.txt", "/groups/../../secret.txt", "/groups/../x/"),
        *("/groups/{}/secret.txt", "/groups/{}/.lock", "/groups/{}/checkpoints/", "/groups/{}"),
        *("/groups/{}/output.txt", "/groups/{}/curve.png", "/groups/{}/../{}/config.yaml"),
        *("/groups/{}%00/config.yaml", "/groups/{}/%ff", "//[", "/%", "http://127.0.0.1/x"),
    ],
)
def test_nothing_else_is(server, sweep_dir, path):
    """No folder, no other file, no link that leads elsewhere, no pipe to wait for."""
    answer, page = ask(server, path.replace("{}", store.units_of(sweep_dir)[0].name))
    assert answer.status == 404
    assert b"secret" not in page


def test_a_report_is_brought_up_to_date(server, sweep_dir, monkeypatch):
    monkeypatch.setattr(serve, "write_report", lambda _: sweep_dir / "other.html")
    (sweep_dir / "other.html").write_text("<meta charset=utf-8>new")
    assert not ask(server)[1].endswith(b"new")  # it is young enough
    monkeypatch.setattr(server, "_made", server._made - serve.REFRESH)
    monkeypatch.setattr(server, "_report", server._report)
    assert ask(server)[1].endswith(b"new")
    monkeypatch.setattr(serve, "write_report", lambda _: Path("gone").read_text())
    monkeypatch.setattr(server, "_made", float("-inf"))
    answer, page = ask(server)
    assert (answer.status, b"No such file" in page) == (500, True)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "X"])
def test_it_can_only_be_read(server, method):
    answer, _ = ask(server, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("localhost", "localhost:9000", "127.0.0.1:1", "[::1]:80")),
        *((name, 403) for name in ("example.com", "127.0.0.1.example.com", "0.0.0.0", "", "[")),
    ],
)
def test_only_who_names_this_machine_is_answered(server, host, status):
    assert ask(server, Host=host)[0].status == status


def test_every_answer_forbids_what_the_page_does_not_need(server):
    for path, method in (("/", "GET"), ("/nothing", "GET"), ("/", "POST")):
        answer, _ = ask(server, path, method)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith(NO_REQUESTS)
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] is None


def test_odd_requests_and_clients_that_leave_get_no_traceback(server, capfd, monkeypatch):
    monkeypatch.setattr(serve.Handler, "timeout", 0.2)
    host = b"Host: localhost\r\n"
    assert raw(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 403")
    assert raw(server, b"GET / HTTP/1.1\r\n" + host * 2 + b"\r\n").startswith(b"HTTP/1.0 403")
    for words in (
        b"\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff\x00 \x01 HTTP/1.1\r\n\r\n",
    ):
        assert b" 200 " not in raw(server, words)
    assert b" 414 " in raw(server, b"GET /" + b"a" * 70_000)
    assert b" 431 " in raw(server, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200)
    with socket.create_connection(server.server_address, timeout=10.0) as silent:
        assert silent.recv(1) == b""  # it is left
    for _ in range(3):
        leaving = socket.create_connection(server.server_address)
        leaving.sendall(b"GET / HTTP/1.1\r\n" + host + b"\r\n")
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()  # by a reset
    assert ask(server)[0].status == 200
    assert capfd.readouterr().err == ""

    def fail(_):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(server, "answer", fail)
    assert raw(server, b"GET / HTTP/1.1\r\n" + host + b"\r\n") == b""
    assert capfd.readouterr().err == "mbpo-jax: no answer: ZeroDivisionError: of ours\n"


def test_a_port_that_cannot_be_had_is_told(server, sweep_dir, monkeypatch):
    monkeypatch.setattr(serve, "write_report", lambda _: sweep_dir / "report.html")
    for port in (server.server_port, 1_000_000):
        with pytest.raises(ConfigError, match="choose another --port"):
            serve.make_server(sweep_dir, port)


@pytest.mark.slow
def test_a_browser_shows_the_page_under_that_policy(server):
    address = f"http://127.0.0.1:{server.server_port}/"
    with chromium() as browser:
        with opened(browser, address) as page:
            page.fill("#filter", "pendulum")
            assert page.locator("#count").text_content() == "3 of 3 runs"
            assert page.locator("figure.chart canvas").is_visible()
        with opened(browser, f"{address}report.html") as page:
            link = page.locator("#runs a").first.evaluate("a => a.href")
        with opened(browser, link) as page:
            assert page.locator("li a").first.text_content() == "status.json"
