"""One whole study by command with the real Ray, watched while it runs and while its dashboard lingers."""

import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import browser, text_of, wait_until
from serial_ray import run_command
from test_study import SIX_TRIALS, TIMES

from training.config import PROJECT

NAME = "watched-study"
TOKEN = "c0ffee" * 10
OF_ITS_EPOCHS = ["seconds", "evaluation_seconds", "waiting_seconds", "reported", "pid"]

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("drawn_charts")]


@dataclass
class WatchedStudy:
    """A study called `watched-study`, of six trials, one at a time, and what was seen of it."""

    results: Path
    process: subprocess.Popen[bytes]
    output: Path
    errors: Path
    listening: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Addresses on which its processes accepted connections, by name of the process."""
    processes: set[int] = field(default_factory=set)
    workers: set[int] = field(default_factory=set)
    """Its worker processes, busy or not."""
    command_lines: str = ""
    environments: str = ""
    blocking_sigterm: set[str] = field(default_factory=set)
    """Names of its processes that block SIGTERM; `driver` is the process of the command."""

    @property
    def stdout(self) -> str:
        return self.output.read_text()

    @property
    def stderr(self) -> str:
        return self.errors.read_text()

    def watch(self) -> None:
        """Look at its processes until its dashboard lingers."""
        while "The dashboard stays open" not in self.stdout:
            assert self.process.poll() is None, self.stdout + self.stderr
            for process in processes_below(self.process.pid):
                self.processes.add(process)
                with suppress(OSError):  # it has ended meanwhile
                    self.listening[Path(f"/proc/{process}/comm").read_text().strip()] |= listening(process)
                    command_line = Path(f"/proc/{process}/cmdline").read_text()
                    self.command_lines += command_line
                    if command_line.startswith(("ray::IDLE", "ray::TrialWorker")):
                        self.workers.add(process)
                    self.environments += Path(f"/proc/{process}/environ").read_text(errors="replace")
                    if blocks_sigterm(process):
                        name = Path(f"/proc/{process}/comm").read_text().strip()
                        self.blocking_sigterm.add("driver" if process == self.process.pid else name)
            time.sleep(0.5)


def blocks_sigterm(process: int) -> bool:
    """Whether a process blocks SIGTERM in its main thread, and not just while it starts another process."""
    status = Path(f"/proc/{process}/status")

    def blocks() -> bool:
        return bool(int(status.read_text().partition("SigBlk:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)

    if not blocks():
        return False
    time.sleep(0.05)
    return blocks()


def runs(process: int) -> bool:
    """Whether a process has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def processes_below(ancestor: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found


def listening(process: int) -> set[str]:
    """The addresses on which a process accepts connections."""
    sockets = {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = columns = line.split()
            if state == "0A" and f"socket:[{columns[9]}]" in sockets:
                words = bytes.fromhex(local.partition(":")[0])
                address = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                found.add(str(ipaddress.ip_address(address)))
    return found


@pytest.fixture(scope="module")
def lingering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedStudy]:
    """The study when all its trials have ended; it runs beside a `training` and a `search` that are not ours."""
    folder = tmp_path_factory.mktemp("whole")
    token, elsewhere = folder / "token", folder / "elsewhere"
    token.write_text(TOKEN)
    token.chmod(0o600)
    for package in ("training", "search"):
        (elsewhere / package).mkdir(parents=True)
        (elsewhere / package / "__init__.py").write_text("raise ImportError('somebody else's')")
    words = [*SIX_TRIALS, "--name", NAME, "--results-dir", str(folder / "results")]
    words += ["--dashboard-linger", "5m", "--open-dashboard"]
    browser_of_user = folder / "browser"
    browser_of_user.write_text(f'#!/bin/sh\nprintf %s "$1" > {folder}/opened\n')
    browser_of_user.chmod(0o700)
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "search" / "run.py"), *words],
            cwd=elsewhere,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"RAY_AUTH_TOKEN_PATH": str(token), "BROWSER": f"{browser_of_user} %s"},
        )
    try:
        study = WatchedStudy(folder / "results", process, folder / "stdout", folder / "stderr")
        study.watch()
        yield study
    finally:
        process.kill()


@pytest.fixture(scope="module")
def whole_study(lingering: WatchedStudy) -> WatchedStudy:
    """The study when it has ended."""
    lingering.process.send_signal(signal.SIGINT)
    assert lingering.process.wait(timeout=60) == 0, lingering.stderr
    return lingering


def test_ray_dashboard_knows_the_study(lingering: WatchedStudy) -> None:
    """Its jobs page has the name, its actors too, and the gauges are at the metrics endpoint."""
    (url,) = re.findall(r"stays open for 5m: (http://127\.0\.0\.1:\d+)", lingering.stdout)

    def ask(path: str) -> Any:
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    actors = wait_until(lambda: ask("/logical/actors")["data"]["actors"])
    assert {actor["reprName"] for actor in actors.values()} == {f"study {NAME}: its log names its trials"}
    assert {actor["actorClass"] for actor in actors.values()} == {"TrialWorker"}
    (node,) = ask("/nodes?view=summary")["data"]["summary"]
    metrics = f"http://127.0.0.1:{node['raylet']['metricsExportPort']}/metrics"
    gauge = re.compile(rf'^ray_tunesmith_val_accuracy\{{.*study="{NAME}".*trial="\d".*\}} (0\.\d+)$', re.MULTILINE)
    values = wait_until(lambda: gauge.findall(urllib.request.urlopen(metrics, timeout=30).read().decode()))
    assert 0 < float(values[0]) < 1
    with browser() as opened:
        opened.get((lingering.results.parent / "opened").read_text())  # what the browser of the user was to open
        assert opened.current_url.startswith(f"{url}/")
        opened.get(f"{url}/#/jobs")
        wait_until(lambda: NAME in text_of(opened))


def test_study_succeeds_and_says_no_more_than_it_should(whole_study: WatchedStudy) -> None:
    assert whole_study.stderr == ""
    assert len(whole_study.stdout.splitlines()) < 45
    assert "  dashboard  http://127.0.0.1:" in whole_study.stdout
    assert re.search(r"\n  sign in    http://127\.0\.0\.1:\d+/\S{22} \(opened\)\n", whole_study.stdout)
    assert not re.search(r"warn|ray::|\(pid|╭|Traceback", whole_study.stdout, re.IGNORECASE)


def test_study_without_ray_has_its_tables(whole_study: WatchedStudy, tmp_path: Path) -> None:
    serial = run_command("search/run.py", *SIX_TRIALS, "--name", NAME, "--results-dir", str(tmp_path))
    assert serial.status == 0, serial.stderr
    for table, own in (("trials.csv", TIMES), ("epochs.csv", OF_ITS_EPOCHS)):
        with_ray, without = (pd.read_csv(folder / NAME / table) for folder in (whole_study.results, tmp_path))
        assert not set(own) - set(with_ray.columns)
        pd.testing.assert_frame_equal(with_ray.drop(columns=own), without.drop(columns=own), check_exact=True)
    assert set(pd.read_csv(tmp_path / NAME / "trials.csv")["status"]) == {"completed", "stopped_early"}


def test_worker_that_starts_with_ray_trains_all_trials(whole_study: WatchedStudy) -> None:
    pids = pd.read_csv(whole_study.results / NAME / "epochs.csv")["pid"]
    assert whole_study.workers == set(pids)


def test_token_is_neither_shown_nor_stored(whole_study: WatchedStudy) -> None:
    stored = [file.read_bytes() for file in whole_study.results.rglob("*") if file.is_file()]
    assert len(stored) >= 5
    assert not any(TOKEN.encode() in content for content in stored)
    assert TOKEN not in whole_study.stdout + whole_study.stderr
    assert TOKEN not in whole_study.command_lines  # which every user of the machine sees


def test_everything_listens_on_loopback_only(whole_study: WatchedStudy) -> None:
    assert {"raylet", "gcs_server", "python"} <= whole_study.listening.keys()
    assert any(name.startswith("ray::") and addresses for name, addresses in whole_study.listening.items())
    for name, addresses in whole_study.listening.items():
        for address in map(ipaddress.ip_address, addresses):
            mapped = getattr(address, "ipv4_mapped", None)
            assert (mapped or address).is_loopback, f"{name} listens on {address}"


def test_token_authentication_is_on(whole_study: WatchedStudy) -> None:
    assert "RAY_AUTH_MODE=token" in whole_study.environments
    assert "RAY_AUTH_MODE=disabled" not in whole_study.environments


def test_processes_of_ray_block_the_signal_that_ends_the_driver(whole_study: WatchedStudy) -> None:
    """`timeout`, systemd and scancel send it to all of them, and without Ray the driver could not end in order."""
    assert {"raylet", "gcs_server"} <= whole_study.blocking_sigterm
    assert "driver" not in whole_study.blocking_sigterm


def test_no_process_is_left(whole_study: WatchedStudy) -> None:
    assert len(whole_study.processes) > 5
    assert not list(filter(runs, whole_study.processes))
