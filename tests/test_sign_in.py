"""The page that signs a browser in to Ray's dashboard: once, for its user alone, and without a token in an address."""

import itertools
import os
import threading
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from search.engine import sign_in
from search.engine.sign_in import SignIn, open_browser
from search.monitoring.terminal import dashboard_lines
from search.record.lookup import settings_to_json
from search.settings import StudySettings

TOKEN = "c0ffee" * 10
COOKIE = f"ray-authentication-token={TOKEN}; HttpOnly; Path=/; SameSite=Strict"


class Dashboard(BaseHTTPRequestHandler):
    """What Ray's dashboard answers to its own page that asks for the token."""

    def do_POST(self) -> None:
        accepted = self.path == "/api/authenticate" and self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.send_response(200 if accepted else 403)
        if accepted:
            self.send_header("Set-Cookie", COOKIE)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def answer(address: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of a page, without going on to where it sends the browser."""
    try:
        with urllib.request.build_opener(NoRedirect).open(address, timeout=10) as page:
            return page.status, dict(page.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def is_gone(address: str) -> bool:
    """Whether a page is not there any more: its server is closed, or about to close."""
    try:
        return answer(address)[0] == 404
    except OSError:
        return True


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The headers with which this process asks the dashboard; a test can change them."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    monkeypatch.setattr(sign_in, "get_auth_headers_if_auth_enabled", lambda _: headers)
    return headers


@pytest.fixture
def dashboard(token: dict[str, str]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_first_browser_gets_the_cookie_and_the_page_is_gone(dashboard: str) -> None:
    page = SignIn(dashboard)
    address = page.address
    assert address is not None
    status, headers = answer(address)
    assert (status, headers["Location"]) == (303, f"http://{dashboard}/")
    assert headers["Set-Cookie"] == COOKIE
    assert headers["Cache-Control"] == "no-store"
    assert page.address is None
    assert is_gone(address)
    page.close()


def test_token_is_in_no_address_and_each_page_has_another_one(dashboard: str) -> None:
    first, second = SignIn(dashboard), SignIn(dashboard)
    addresses = [str(first.address), str(second.address)]
    assert not any(TOKEN in address for address in addresses)
    assert len({address.rpartition("/")[2] for address in addresses}) == 2
    for page in (first, second):
        page.close()
        assert page.address is None


def test_other_address_is_not_found_and_leaves_the_page(dashboard: str) -> None:
    page = SignIn(dashboard)
    address = str(page.address)
    for other in (address[:-1], address + "a", address.rpartition("/")[0] + "/"):
        assert answer(other)[0] == 404
    assert answer(address)[0] == 303


def test_other_user_is_refused_and_leaves_the_page(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = SignIn(dashboard)
    address = str(page.address)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 12345)
        status, headers = answer(address)
        assert status == 404
        assert "Set-Cookie" not in headers
    assert answer(address)[0] == 303


@pytest.mark.parametrize(("left_out", "status"), [(1, 303), (100, 404)])
def test_connection_that_one_reading_left_out_is_looked_for_again(
    left_out: int, status: int, dashboard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's table is written while it changes, and the first reading may not have the browser's connection."""
    read, readings = sign_in._owners, itertools.count()
    monkeypatch.setattr(sign_in, "_owners", lambda *words: set() if next(readings) < left_out else read(*words))
    page = SignIn(dashboard)
    assert answer(str(page.address))[0] == status
    page.close()


def test_dashboard_without_token_needs_no_page(dashboard: str, token: dict[str, str]) -> None:
    token.clear()
    page = SignIn(dashboard)
    assert (page.address, page.needs_token) == (f"http://{dashboard}", False)


def test_dashboard_that_cannot_be_signed_in_is_named(dashboard: str, token: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"it is at 10\.0\.0\.1, and a browser can be signed in only on the machine"):
        SignIn("10.0.0.1:8265")
    token["Authorization"] = "Bearer of-another-cluster"
    with pytest.raises(ValueError, match=r"it does not accept the token of this process \(403 Forbidden\)"):
        SignIn(dashboard)
    with pytest.raises(ValueError, match="it does not answer"):
        SignIn("127.0.0.1:9")


@pytest.mark.parametrize(
    ("variables", "opens"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.2 5 10.0.0.1 22"}, False),
        ({"BROWSER": "/of/the/editor", "SSH_CONNECTION": "10.0.0.2 5 10.0.0.1 22"}, True),
    ],
)
def test_browser_is_opened_where_one_has_a_window(
    variables: dict[str, str], opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    opened = threading.Event()

    class Browser(webbrowser.BaseBrowser):
        def open(self, *_: Any) -> bool:
            opened.set()
            return True

    monkeypatch.setattr(webbrowser, "get", Browser)
    monkeypatch.setattr("sys.platform", "linux")
    assert open_browser("http://127.0.0.1") == opens
    assert opened.wait(5 if opens else 0) == opens


def test_no_browser_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", none)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert not open_browser("http://127.0.0.1")


def test_option_is_of_one_session_and_needs_the_dashboard() -> None:
    assert "open_dashboard" not in settings_to_json(StudySettings(open_dashboard=True))
    with pytest.raises(ValueError, match="open_dashboard needs the dashboard: leave no-dashboard out"):
        StudySettings(open_dashboard=True, dashboard=False)


def test_lines_of_the_header() -> None:
    assert dashboard_lines(None, None) == ["  dashboard  the Ray dashboard does not answer"]
    assert dashboard_lines("127.0.0.1:8265", None) == [
        "  dashboard  http://127.0.0.1:8265 (ray get-auth-token prints its token)"
    ]
    assert dashboard_lines("127.0.0.1:8265", "http://127.0.0.1:9/x (works once)") == [
        "  dashboard  http://127.0.0.1:8265",
        "  sign in    http://127.0.0.1:9/x (works once)",
    ]
