"""Signs a browser in to the Ray dashboard, whose token no address can carry: a page of this process sets its cookie."""

import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Lock, Thread

from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 5.0
"""Seconds in which the dashboard must answer, and a browser must send its request."""
_CONNECTIONS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""Tables of connections, the second one also of those from sockets for both kinds of addresses."""
_READINGS = 10
_SECONDS_BETWEEN_READINGS = 0.02


class SignIn:
    """A page that signs in the first browser of this user that opens it, and then is gone.

    The page is reached by this machine alone, its address is random, and where the system tells the owner of a
    connection, other users are refused. Browsers send a cookie to all ports of a host, so the cookie that the dashboard
    itself gives for the token, and which this page hands on, is sent to the dashboard.
    """

    def __init__(self, dashboard_url: str) -> None:
        """Begin to serve the page.

        Args:
            dashboard_url: Host and port of the dashboard.

        Raises:
            ValueError: The dashboard is on another machine, or does not accept the token of this process.
        """
        host, _, port = dashboard_url.rpartition(":")
        if host not in (LOOPBACK, "localhost"):
            raise ValueError(f"it is at {host}, and a browser can be signed in only on the machine of the dashboard")
        self._dashboard = f"http://{LOOPBACK}:{port}"
        self._cookies = _cookies_for_token(self._dashboard)
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._lock = Lock()
        self._server = _Server(self) if self._cookies else None

    @property
    def needs_token(self) -> bool:
        """Whether the dashboard asks for a token."""
        return bool(self._cookies)

    @property
    def address(self) -> str | None:
        """The address that signs in; that of the dashboard if it needs no token; None if it was used."""
        if (server := self._server) is not None:
            return f"http://{LOOPBACK}:{server.port}{self._path}"
        return None if self.needs_token else self._dashboard

    def close(self) -> None:
        """End the page."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.end()

    def answer(self, request: "_Request") -> None:
        """Hand the cookie on to the first request for the page, and end the page."""
        is_meant = secrets.compare_digest(request.path.encode(), self._path.encode())
        with self._lock:
            server = self._server
            if server is None or not is_meant or not _is_ours(request.client_address, server.port):
                request.send_error(HTTPStatus.NOT_FOUND)
                return
            self._server = None
        request.send_response(HTTPStatus.SEE_OTHER)
        for cookie in self._cookies:
            request.send_header("Set-Cookie", cookie)
        request.send_header("Location", f"{self._dashboard}/")
        request.send_header("Cache-Control", "no-store")
        request.send_header("Referrer-Policy", "no-referrer")
        request.send_header("Content-Length", "0")
        request.end_headers()
        server.end()


class _Server(ThreadingTCPServer):
    """Serves a page, each request in a thread of its own, because browsers also open connections and send nothing."""

    daemon_threads = True

    def __init__(self, page: SignIn) -> None:
        super().__init__((LOOPBACK, 0), _Request)
        self.page = page
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        """Accept no more connections."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Print nothing about a browser that has gone away."""


class _Request(BaseHTTPRequestHandler):
    """A request for a page."""

    timeout = ANSWER_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Let the page answer."""
        self.server.page.answer(self)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def open_browser(address: str) -> bool:
    """Open an address in a browser with a window of its own; returns whether there is one."""
    has_display = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    is_remote = "SSH_CONNECTION" in os.environ
    if "BROWSER" not in os.environ and (is_remote or not has_display):
        return False  # else a browser of the terminal might take its place
    with suppress(webbrowser.Error):
        browser = webbrowser.get()
        Thread(target=browser.open, args=[address], daemon=True).start()  # some return when they are closed
        return True
    return False


def _cookies_for_token(dashboard: str) -> list[str]:
    """The cookies that the dashboard gives for the token of this process; none if it needs no token."""
    headers = get_auth_headers_if_auth_enabled({})
    if not headers:
        return []
    request = urllib.request.Request(f"{dashboard}/api/authenticate", method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.headers.get_all("Set-Cookie") or []
    except urllib.error.HTTPError as error:
        raise ValueError(f"it does not accept the token of this process ({error.code} {error.reason})") from None
    except OSError as error:
        raise ValueError(f"it does not answer ({error})") from None


def _is_ours(client: tuple[str, int], server_port: int) -> bool:
    """Whether a process of this user opened a connection from this machine; True where the system does not tell.

    The system writes its tables in pieces while connections come and go, and a row can be left out of one reading. So a
    connection that is in no table is looked for again.
    """
    tables = [table for table in _CONNECTIONS if table.exists()]
    if not tables:
        return True
    for _ in range(_READINGS):
        if owners := _owners(tables, client, server_port):
            return owners == {os.getuid()}
        time.sleep(_SECONDS_BETWEEN_READINGS)
    return False


def _owners(tables: list[Path], client: tuple[str, int], server_port: int) -> set[int]:
    """The users who own the client's end of a connection to a port of this machine, as the tables have it."""
    local, remote = _hexadecimal(*client), _hexadecimal(LOOPBACK, server_port)
    rows = (line.split() for table in tables for line in table.read_text().splitlines()[1:])
    return {int(row[7]) for row in rows if row[1].endswith(local) and row[2].endswith(remote)}


def _hexadecimal(host: str, port: int) -> str:
    """An address as the table of connections has it."""
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
