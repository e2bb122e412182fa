"""Pages that people look at, in a real browser: the report, the Ray dashboard, optuna-dashboard."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from serial_ray import run_command

from training.config import PROJECT

REFERENCE = PROJECT / "results" / "fashion-mnist-reference"


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)


def text_of(opened: Any) -> str:
    return str(opened.execute_script("return document.body.innerText"))


def requested(opened: Any) -> set[str]:
    """Addresses that the page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    return {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(REFERENCE, tmp_path_factory.mktemp("report") / "reference")
    done = run_command("search/report.py", str(folder))
    assert done.status == 0, done.stdout + done.stderr
    return Path(folder) / "report.html"


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    """One browser; each start of it takes seconds."""
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 400])
def test_every_chart_of_the_report_is_drawn_and_no_request_leaves_the_page(
    opened: Any, report: Path, width: int
) -> None:
    opened.set_window_size(width, 1000)
    opened.get(report.as_uri())
    assert opened.execute_script("return innerWidth") == width
    wait_until(lambda: opened.execute_script("return document.documentElement.dataset.drawn") == "yes")
    drawn = "return [...document.querySelectorAll('.figure')].map(figure => figure.querySelectorAll('path').length)"
    paths = opened.execute_script(drawn)
    assert len(paths) >= 12
    assert min(paths) > 0
    wide = "return [...document.querySelectorAll('section, .cards')].filter(part => part.scrollWidth > innerWidth)"
    assert opened.execute_script(f"{wide}.length") == 0
    assert [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert {url for url in requested(opened) if not url.startswith("data:")} == {report.as_uri()}


def test_trials_of_the_report_can_be_sorted(opened: Any, report: Path) -> None:
    opened.get(report.as_uri())
    numbers = "return [...document.querySelectorAll('#trials tbody tr')].map(row => +row.cells[0].textContent)"
    ranked = opened.execute_script(numbers)
    heading = opened.find_element("css selector", "#trials th button")
    heading.click()
    assert opened.execute_script(numbers) == sorted(ranked)
    heading.click()
    assert opened.execute_script(numbers) == sorted(ranked, reverse=True)


def test_report_is_drawn_for_dark_and_for_paper(opened: Any, report: Path) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    opened.get(report.as_uri())
    colour = "return getComputedStyle(document.querySelector('.figure .xtitle')).fill"
    assert opened.execute_script(colour) == "rgb(230, 233, 237)"
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert opened.execute_script(colour) == "rgb(0, 0, 0)"


@contextmanager
def killed_at_last(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that would outlive a test that fails."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.ray
def test_ray_dashboard_knows_the_study(tmp_path: Path) -> None:
    """Its jobs page has the name, its actors too, and the gauges are at the metrics endpoint."""
    words = ["--dataset", "digits", "--num-samples", "3", "--epochs", "3", "--name", "seen-study"]
    command = [sys.executable, str(PROJECT / "search" / "run.py"), *words, "--results-dir", str(tmp_path)]
    with killed_at_last([*command, "--dashboard-linger", "5m"]) as study:
        assert study.stdout is not None
        output = ""
        while "The dashboard stays at" not in output:
            line = study.stdout.readline()
            assert line, output
            output += line
        (url,) = re.findall(r"stays at (http://127\.0\.0\.1:\d+) for 5m", output)
        shown = subprocess.run(
            [str(Path(sys.executable).with_name("ray")), "get-auth-token"], capture_output=True, text=True, check=True
        )
        token = shown.stdout.strip().splitlines()[-1]

        def ask(path: str) -> Any:
            request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
            return json.loads(urllib.request.urlopen(request, timeout=30).read())

        actors = wait_until(lambda: ask("/logical/actors")["data"]["actors"])
        assert {actor["reprName"] for actor in actors.values()} == {"seen-study"}
        (node,) = ask("/nodes?view=summary")["data"]["summary"]
        port = node["raylet"]["metricsExportPort"]
        metrics = f"http://127.0.0.1:{port}/metrics"
        gauge = re.compile(r'^ray_tunesmith_val_accuracy\{.*study="seen-study".*trial="2".*\} (0\.\d+)$', re.MULTILINE)
        told = wait_until(lambda: gauge.findall(urllib.request.urlopen(metrics, timeout=30).read().decode()))
        assert 0 < float(told[0]) < 1
        with browser() as opened:
            opened.get(url)
            opened.add_cookie({"name": "ray-authentication-token", "value": token})
            opened.get(f"{url}/#/jobs")
            opened.refresh()
            wait_until(lambda: "seen-study" in text_of(opened))
        study.send_signal(signal.SIGINT)
        assert study.wait(timeout=60) == 0


def test_optuna_dashboard_shows_the_record(tmp_path: Path) -> None:
    folder = shutil.copytree(REFERENCE, tmp_path / "reference")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), f"sqlite:///{folder / 'study.db'}"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def answer(path: str) -> Any:
            try:
                return json.loads(urllib.request.urlopen(url + path, timeout=10).read())
            except OSError:
                return None

        studies = wait_until(lambda: answer("/api/studies"))
        (study,) = studies["study_summaries"]
        assert study["study_name"] == "fashion-mnist-reference"
        trials = answer(f"/api/studies/{study['study_id']}")["trials"]
        states = [trial["state"] for trial in trials]
        assert (states.count("Complete"), states.count("Pruned"), len(states)) == (5, 15, 20)
        with browser() as opened:
            opened.get(f"{url}/dashboard/studies/{study['study_id']}")
            wait_until(lambda: "fashion-mnist-reference" in text_of(opened))
            wait_until(lambda: opened.execute_script("return document.querySelectorAll('.plot-container').length") >= 2)
    finally:
        server.kill()
        server.wait()
