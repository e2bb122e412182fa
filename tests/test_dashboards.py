"""Pages that people look at, in a real browser: the report and optuna-dashboard."""

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from browser import browser, text_of, wait_until
from serial_ray import run_command

from training.config import PROJECT

REFERENCE = PROJECT / "results" / "fashion-mnist-reference"


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


QUERIES = {
    "studies": "SELECT s.study_id, s.study_name, sd.direction, sd.objective FROM studies AS s "
    "INNER JOIN study_directions AS sd ON s.study_id = sd.study_id ORDER BY sd.study_direction_id",
    "trials": "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE study_id = 1 "
    "ORDER BY number",
    "values": "SELECT value, value_type FROM trial_values WHERE trial_id = 1 ORDER BY objective",
    "params": "SELECT param_name, param_value, distribution_json FROM trial_params WHERE trial_id = 1",
    "epochs": "SELECT step, intermediate_value, intermediate_value_type FROM trial_intermediate_values "
    "WHERE trial_id = 1 ORDER BY step",
}
"""What the extension of VS Code asks a file, by `tslib/storage/src/sqlite.ts` of optuna/optuna-dashboard."""


def test_extension_of_vs_code_finds_what_it_asks_for() -> None:
    """It reads the whole file at once, and asks it in sqlite; it knows versions of the schema from v2.6.0.a on."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize((REFERENCE / "study.db").read_bytes())
        (version,) = database.execute("SELECT version_num FROM alembic_version LIMIT 1").fetchone()
        found = {name: database.execute(query).fetchall() for name, query in QUERIES.items()}
    assert version >= "v3.0.0.d"  # from which on values have a type
    assert found["studies"] == [(1, "fashion-mnist-reference", "MAXIMIZE", 0)]
    assert [state for _, _, state, _, _ in found["trials"]].count("PRUNED") == 15
    assert found["values"][0][1] == "FINITE"
    distributions = {json.loads(text)["name"] for _, _, text in found["params"]}
    assert distributions == {"FloatDistribution", "IntDistribution", "CategoricalDistribution"}
    assert [step for step, _, _ in found["epochs"]] == [*range(1, 11)]


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
            wait_until(lambda: "val_accuracy" in text_of(opened))  # instead of Objective 0
            wait_until(lambda: opened.execute_script("return document.querySelectorAll('.plot-container').length") >= 2)
    finally:
        server.kill()
        server.wait()
