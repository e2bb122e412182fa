"""What the commands write with --json: objects of the schema alone, whatever is printed, and nothing is lost."""

import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, get_args

import make_commands
import make_json_schema
import pandas as pd
import pytest
import tables
from own_code import write_functions
from PIL import Image
from serial_ray import CompletedRun, StartedRun, run_command
from studies import few_digits

from search.analysis.findings import Findings
from search.analysis.fixing import Fixing
from search.analysis.importance import Importance
from search.analysis.recommendations import Recommendation
from search.engine.study_run import EXIT_NOTHING_COMPLETED, EXIT_OK
from search.outputs import study_objects
from search.record.study_record import StudyRecord
from search.record.trial import Status
from search.reproduce import EXIT_AGREES, EXIT_DIFFERS, EXIT_INTERRUPTED
from search.run_search import run_search
from training.config import PROJECT
from training.console import command_line
from training.console.json_output import Event, objects_written_to, plain, write_events, write_object
from training.console.terminal import show_event
from training.images.image_data import ImageData

PROGRAMS = PROJECT / "docs" / "programs.md"
SCHEMA = make_json_schema.adapter()
STUDY = ("--dataset=digits", "--epochs=2", "--num-samples=4", "--no-dashboard", "--max-concurrent=1")


@pytest.fixture(scope="module", autouse=True)
def _few_digits(digits: ImageData) -> Iterator[None]:
    with few_digits():
        yield


def objects(run: CompletedRun) -> list[dict[str, Any]]:
    """What a command wrote; each line must be an object of the schema."""
    lines = run.stdout.splitlines(keepends=True)
    assert all(line.endswith("\n") for line in lines)
    return [checked(line) for line in lines]


def checked(line: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read: dict[str, Any] = json.loads(line, parse_constant=refuse)
    SCHEMA.validate_json(line, strict=True, extra="forbid")
    assert next(iter(read)) == "type"
    return read


def document(script: str, *words: object, status: int = 0) -> dict[str, Any]:
    """The one document of a command that ends with this status."""
    run = run_command(script, *map(str, words), "--json")
    assert run.status == status, run.stderr
    (read,) = objects(run)
    return read


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def run(results: Path) -> CompletedRun:
    """A study."""
    done = run_command("search/run.py", "--json", *STUDY, f"--results-dir={results}", "--name=study-1")
    assert done.status == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def study(run: CompletedRun, results: Path) -> Path:
    return results / "study-1"


def of_type(name: str, all_objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in all_objects if one["type"] == name]


def test_schema_is_that_of_the_objects() -> None:
    assert make_json_schema.FILE.read_text() == make_json_schema.written(), "run python docs/make_json_schema.py"


def test_every_command_takes_the_option() -> None:
    for script, (_, command) in make_commands.COMMANDS.items():
        settings = getattr(import_module(command.module), command.settings)
        assert "json" in {field.name for field in fields(settings)}, script


# A study, an object a line


def test_study_writes_each_of_its_events_once(run: CompletedRun) -> None:
    seen = [one["type"] for one in objects(run)]
    one_trial = ["trial_started", "epoch", "epoch", "trial_ended"]
    assert seen[:5] == ["study_started", *one_trial]
    assert seen[-1] == "study_ended"
    assert seen.count("trial_started") == seen.count("trial_ended") == 4
    assert {*seen} == {"study_started", *one_trial, "study_ended"}
    assert "Ended trials; * marks the best so far" in run.stderr  # sentences for people
    assert "Reproduce: " in run.stderr


def test_numbers_of_a_study_are_those_of_its_record(run: CompletedRun, study: Path) -> None:
    record, seen = StudyRecord.open(study), objects(run)
    measured = {(one["trial_number"], one["epoch"]): one["metrics"] for one in of_type("epoch", seen)}
    names = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss")
    assert measured == {
        (trial.number, metrics.epoch): {name: getattr(metrics, name) for name in names}
        for trial in record.trials
        for metrics in trial.epochs
    }
    for trial, ended in zip(record.trials, of_type("trial_ended", seen), strict=True):
        assert ended["hyperparameters"] == trial.hyperparameters
        assert (ended["status"], ended["epochs"], ended["seed"]) == (trial.status, len(trial.epochs), trial.seed)
        assert ended["metrics"] == measured[trial.number, ended["best_epoch"]]
    best = [one["trial_number"] for one in of_type("trial_ended", seen) if one["is_best"]]
    assert best[-1] == pd.read_csv(study / "trials.csv")["trial_number"][0]


def test_end_of_a_study_names_what_it_left_and_how_to_go_on(run: CompletedRun, study: Path) -> None:
    (started, *_, ended) = objects(run)
    assert (started["folder"], started["ended"], started["num_samples"]) == (str(study), 0, 4)
    assert started["dataset"]["name"] == "digits"
    assert ended["exit_status"] == 0
    assert sum(ended["trials"].values()) == ended["ended"] == 4
    files = [path for name, path in ended["files"].items() if name != "confirm"]
    assert ended["files"]["confirm"] is None
    assert all(Path(path).exists() for path in files)
    for line in ended["commands"].values():
        assert line in run.stderr or line == ended["commands"]["resume"]


def test_record_does_not_know_that_objects_were_written(study: Path) -> None:
    assert "json" not in json.loads((study / "study.json").read_text())["settings"]


def test_study_that_is_complete_starts_and_ends(run: CompletedRun, results: Path) -> None:
    shutil.copytree(results / "study-1", results / "complete")
    done = run_command("search/run.py", "--resume=complete", f"--results-dir={results}", "--json")
    assert [one["type"] for one in objects(done)] == ["study_started", "study_ended"]
    assert objects(done)[0]["ended"] == 4


def test_interrupted_study_ends_with_its_status_and_its_reason(results: Path) -> None:
    reader, writer = os.pipe()
    words = (*STUDY, "--epochs=1000", f"--results-dir={results}")
    with StartedRun("search/run.py", "--json", *words, stdout=writer) as run:
        os.close(writer)
        with open(reader, encoding="utf-8") as lines:
            seen = [checked(next(lines)) for _ in range(3)]
            assert seen[-1]["type"] == "epoch"
            run.send(signal.SIGINT)
            (*_, ended) = map(checked, lines)
        status, _ = run.end()
    assert (ended["type"], ended["exit_status"], ended["reason"]) == ("study_ended", 130, "Interrupted.")
    assert status == 130
    assert ended["trials"]["interrupted"] == 1
    assert ended["commands"]["resume"].startswith("python ")


def test_last_end_of_a_paused_trial_has_its_final_status(tmp_path: Path) -> None:
    write_functions(tmp_path, "def train(lr):\n    yield from ({'val_loss': lr / epoch} for epoch in range(1, 4))\n")
    words = ["--train-function=own.py:train", "--space=space.toml", "--metric=val_loss", "--epochs=3"]
    words += ["--scheduler=promotion", "--num-samples=4", "--name=paused", "--results-dir=."]
    seen = objects(run_command("search/run.py", *words, "--json", cwd=tmp_path))
    statuses = {one["trial_number"]: one["status"] for one in of_type("trial_ended", seen)}
    assert "paused" in [one["status"] for one in of_type("trial_ended", seen)]
    assert dict(Counter(statuses.values())) == seen[-1]["trials"]
    ends = Counter((one["trial_number"], one["status"]) for one in of_type("trial_ended", seen))
    assert {*ends.values()} == {1}
    assert {*statuses.values()} == {"completed", "stopped_early"}


def test_search_space_is_an_object() -> None:
    shown = document("search/run.py", "--show-space", "--dataset=digits", "--set", "optimizer=adam")
    assert shown["space"]["optimizer"] == {"value": "adam"}


NOISY = """
import os, subprocess, sys, warnings

def train(lr):
    print("printed")
    print('{"type": "epoch"}')
    os.write(1, b"written to descriptor 1\\n")
    subprocess.run(["echo", "of another process"])
    warnings.warn("a warning")
    yield {"val_loss": lr, "rate": float("inf")}
    yield {"val_loss": float("nan") if lr > 0 else 0.0}
"""


def test_whatever_is_printed_only_objects_reach_standard_output(tmp_path: Path) -> None:
    write_functions(tmp_path, NOISY)
    words = [
        "--train-function=own.py:train",
        "--space=space.toml",
        "--metric=val_loss",
        "--num-samples=2",
        "--scheduler=none",
    ]
    run = run_command(
        "search/run.py", *words, "--num-samples=2", "--name=noisy", "--results-dir=.", "--json", cwd=tmp_path
    )
    seen = objects(run)
    assert of_type("epoch", seen)[0]["metrics"]["rate"] is None  # not finite
    assert {one["status"] for one in of_type("trial_ended", seen)} == {"diverged"}
    assert of_type("trial_ended", seen)[0]["error"]
    assert "written to descriptor 1\nof another process\n" in run.stderr
    assert (seen[-1]["exit_status"], seen[-1]["best_trial"], run.status) == (1, None, 1)


def test_study_and_its_confirmation_in_one_command(results: Path) -> None:
    words = ["--dataset=digits", "--epochs=1", "--num-samples=1", "--no-dashboard", "--confirm=1x2", "--name=confirmed"]
    seen = objects(run_command("search/run.py", *words, f"--results-dir={results}", "--json"))
    assert [one["type"] for one in seen[-2:]] == ["study_ended", "confirmation"]
    assert seen[-1]["folder"] == str(results / "confirmed")
    assert Path(seen[-1]["model"]).is_dir()
    result, row = seen[-1]["result"], pd.read_csv(results / "confirmed" / "confirm.csv").loc[0]
    assert result["confirmed"]["metric"]["mean"] == row["confirmed_mean"]
    assert result["configurations"][0]["metric"]["low"] == row["low"]
    assert result["final"]["test_accuracy_high"] == row["final_test_accuracy_high"]
    assert document("search/report.py", results / "confirmed")["confirmation"] == result
    again = document("search/confirm.py", results / "confirmed", "--top=1", "--seeds=2")
    assert {name: again[name] for name in again if name != "resume"} == {
        name: seen[-1][name] for name in again if name != "resume"
    }


# The other commands, one document


def test_report_has_all_trials(run: CompletedRun, study: Path) -> None:
    report, ended = document("search/report.py", study), objects(run)[-1]
    same = ("best_trial", "trials", "recommendations", "importances", "commands", "metric", "ended")
    assert {name: report[name] for name in same} == {name: ended[name] for name in same}
    table = pd.read_csv(study / "trials.csv")
    assert [one["trial_number"] for one in report["ranking"]] == table["trial_number"].tolist()
    assert [one["metrics"]["val_loss"] for one in report["ranking"]] == table["val_loss"].tolist()


def test_report_of_a_confirmed_study_with_advice_is_an_object_of_the_schema() -> None:
    record = StudyRecord.open(PROJECT / "results" / "fashion-mnist-cnn")
    recommendation = Recommendation("fix", "batch_size can stay fixed: 32 costs at most 0.1 points.")
    fixings = [Fixing("batch_size", "can stay fixed", 0.001, (32, 64)), Fixing("optimizer", "matters", 0.25)]
    findings = Findings(None, [Importance("learning_rate", 0.75, 0.5, 0.875)], fixings, [recommendation])
    report = checked(json.dumps(plain(study_objects.report(record, findings)), allow_nan=False))
    assert report["importances"] == [{"name": "learning_rate", "share": 0.75, "low": 0.5, "high": 0.875}]
    assert report["recommendations"][0]["sentence"] == recommendation.sentence
    assert report["gain"]["metrics"]["val_accuracy"] > report["gain"]["reference_metrics"]["val_accuracy"]
    confirmation = report["confirmation"]
    assert confirmation["configurations"][0]["trial_number"] == confirmation["confirmed"]["trial_number"]


def test_imported_study_is_an_object_without_what_its_source_lacks(tmp_path: Path) -> None:
    rows = [f"{0.1 * number},{number % 3 + 0.5}" for number in range(1, 9)]
    (tmp_path / "trials.csv").write_text("\n".join(["params_lr,val_loss", *rows]) + "\n")
    words = ("--metric=val_loss", f"--results-dir={tmp_path}")
    report = document("search/report.py", "--import", tmp_path / "trials.csv", *words)
    assert report["origin"]["file"] == "trials.csv"
    assert report["best_trial"]["metrics"] == {"val_loss": 0.5}
    assert (report["best_trial"]["seed"], report["best_trial"]["seconds"]) == (None, None)
    assert {*report["commands"].values()} == {None}


def test_imported_search_space_is_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text("parameters:\n  lr:\n    min: 0.1\n    max: 0.5\n")
    space = document("search/report.py", "--import", "sweep.yaml")
    assert space["space"] == {"lr": {"low": 0.1, "high": 0.5, "log": False}}
    assert Path(space["file"]).is_file()


def test_comparison_has_a_number_for_each_sentence(study: Path, results: Path, tmp_path: Path) -> None:
    shutil.copytree(study, results / "other")
    few = document("search/compare.py", study, results / "other", f"--output={tmp_path / 'few.html'}")
    assert few["groups"][0]["metrics"] == few["groups"][1]["metrics"]
    assert "not compared" in few["significances"][0]["sentence"]
    names, page = ["fashion-mnist-reference", "fashion-mnist-cnn"], tmp_path / "comparison.html"
    compared = document("search/compare.py", *names, f"--results-dir={PROJECT / 'results'}", f"--output={page}")
    assert [group["name"] for group in compared["groups"]] == names
    (significance,) = compared["significances"]
    assert significance["is_clear"]
    assert f"by {significance['gain']:.2f} points" in significance["sentence"]
    assert page.is_file()
    assert compared["page"] == str(page)


def test_reproduction_agrees_to_the_last_digit(study: Path) -> None:
    repeated = document("search/reproduce.py", study, 1)
    assert repeated["agrees"]
    assert [pair["recorded"] for pair in repeated["epochs"]] == [pair["retrained"] for pair in repeated["epochs"]]
    assert [pair["deviations"] for pair in repeated["epochs"]] == [{}, {}]


def test_predictions_have_each_class_and_each_error(study: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "digit.png")
    missing = tmp_path / "missing.png"
    words = (study / "model", tmp_path / "digit.png", missing, "--top=10")
    predicted = document("training/predict.py", *words, status=2)
    digit, other = predicted["images"]
    assert math.isclose(sum(one["probability"] for one in digit["classes"]), 1, abs_tol=1e-6)
    assert digit["has_light_border"]
    assert other["file"] == str(missing)
    assert (other["classes"], "missing.png" in other["error"]) == ([], True)


def test_replays_are_documents(study: Path, tmp_path: Path) -> None:
    of_study = document("search/replay.py", study / "epochs.csv", "--seeds=2")
    assert [one["scheduler"] for one in of_study["schedulers"]] == ["asha", "promotion", "median"]
    table = tables.write(tmp_path, tables.rows())
    of_table = document("search/replay.py", table, "--seeds=2", "--num-samples=6")
    assert len(of_table["studies"]) == 2
    assert [one["trials"] for one in of_table["after_trials"]] == [5, 6]


def test_training_writes_its_epochs() -> None:
    run = run_command("training/run.py", "--dataset=digits", "--epochs=2", "--json")
    started, *epochs, ended = objects(run)
    assert [one["epoch"] for one in epochs] == [1, 2]
    assert (started["epochs"], ended["epochs"], ended["exit_status"]) == (2, 2, 0)
    assert f"Accuracy: {epochs[-1]['metrics']['test_accuracy']:.1%}" in run.stderr


# Errors, and outputs that cannot be written


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("search/run.py", ["--epochs", "0"]),
        ("search/run.py", ["--no-such-option"]),
        ("search/run.py", ["--resume", "no-such-study"]),
        ("search/report.py", ["no-such-study"]),
        ("search/compare.py", ["no-such-study"]),
        ("search/replay.py", ["no-such-table"]),
        ("training/run.py", ["--learning-rate=-1"]),
        ("training/predict.py", ["no-such-model", "image.png"]),
    ],
)
def test_mistake_is_an_object_and_a_sentence(script: str, words: list[str]) -> None:
    run = run_command(script, "--json", *words)
    assert run.status == 2
    (error,) = objects(run)
    assert error["type"] == "error"
    assert run.stderr == f"error: {error['message']}\n"


def test_setting_is_of_commands_alone() -> None:
    with pytest.raises(TypeError, match="run_search has no setting json"):
        run_search(json=True)


def test_crash_is_an_object_and_a_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise RuntimeError("postgresql://me:secret@host went away")

    monkeypatch.setattr(sys, "argv", ["a command", "--json"])
    with _restored(), pytest.raises(RuntimeError):
        command_line.run_command(main, outlive_reader=True)
    assert checked(capfd.readouterr().out)["message"] == "RuntimeError: postgresql://me:***@host went away"


@contextmanager
def _restored() -> Iterator[None]:
    """Bring back the outputs and the handler that a command sets for its process."""
    stdout, handler, descriptor = sys.stdout, signal.getsignal(signal.SIGTERM), os.dup(1)
    yield
    sys.stdout = stdout
    signal.signal(signal.SIGTERM, handler)
    os.dup2(descriptor, 1)
    os.close(descriptor)


def test_help_goes_to_standard_error_too() -> None:
    run = run_command("search/report.py", "--json", "--help")
    assert (run.status, run.stdout) == (0, "")
    assert "--json" in run.stderr


def test_last_of_two_contrary_options_counts(study: Path) -> None:
    assert run_command("search/report.py", str(study), "--json", "--no-json").stdout.startswith("\ndigits: 4 of 4")


def test_closed_reader_does_not_end_a_study(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = (*STUDY, "--epochs=1", "--num-samples=1", "--name=study", f"--results-dir={tmp_path}")
    run = StartedRun("search/run.py", "--json", *words, stdout=writer)
    os.close(writer)
    status, output = run.end()
    assert (status, "Traceback" in output) == (0, False)
    assert (tmp_path / "study" / "report.html").is_file()


def test_full_disk_ends_a_document_with_an_error(study: Path) -> None:
    with open("/dev/full", "wb") as full:
        run = StartedRun("search/reproduce.py", "--json", str(study), "0", stdout=full.fileno())
    status, output = run.end()
    assert status == 1
    assert "error: standard output cannot be written: No space left on device\n" in output


def test_event_is_written_only_by_commands_that_write_events() -> None:
    stream = io.BytesIO()
    stream.close = lambda: None  # type: ignore[method-assign]
    show_event("before")  # there is no command
    with objects_written_to(stream):
        show_event("in a command with one document")
        write_events()
        show_event("the tables cannot be written")
    write_object(Event(sentence="after"))
    assert checked(stream.getvalue().decode()) == {"type": "event", "sentence": "the tables cannot be written"}


def test_values_that_json_does_not_know() -> None:
    values = [math.nan, -math.inf, 0.1 + 0.2, Path("a"), ("\udcff", True), {1: None}]
    assert plain(values) == [None, None, 0.1 + 0.2, "a", ["\\udcff", True], {"1": None}]
    with pytest.raises(TypeError, match="JSON has no set"):
        plain({1})


# A program that drives studies


class Popen:
    """A study that a program starts, with `subprocess.Popen`; it has no Ray."""

    seen: ClassVar[list[list[dict[str, Any]]]] = []
    """The objects of each study, as far as they were read."""

    def __init__(self, words: list[str], **_: object) -> None:
        reader, writer = os.pipe()
        self._run = StartedRun(*words[1:], "--max-concurrent=1", "--no-dashboard", stdout=writer)
        os.close(writer)
        self.stdout, self.wait = self._lines(reader), self._run.end

    def _lines(self, reader: int) -> Iterator[str]:
        self.seen.append([])
        with open(reader, encoding="utf-8") as lines:
            for line in lines:
                self.seen[-1].append(checked(line))
                yield line

    def kill(self) -> None:
        if self._run.is_running():
            self._run.send(signal.SIGKILL)
            self._run.end()


def test_study_that_a_program_kills_and_resumes_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program of the document."""
    (program,) = re.findall(r"```python\n(.*?)```", PROGRAMS.read_text(), re.DOTALL)
    monkeypatch.setattr("subprocess.Popen", Popen)
    program = program.replace('"--epochs", "2"', f'"--epochs", "2", "--results-dir", {str(tmp_path)!r}')
    exec(compile(program, str(PROGRAMS), "exec"), {})
    first, second = Popen.seen
    assert [one["type"] for one in first].count("epoch") == 3  # it was killed then
    assert [one["trial_number"] for one in of_type("trial_ended", first)] == [0]
    assert second[0]["ended"] == 1
    (continued, *_) = of_type("trial_started", second)
    assert continued["trial_number"] == 1
    assert continued["epochs"] >= 1  # an epoch may be recorded when the kill comes, and not yet written
    recorded = pd.read_csv(Path(second[-1]["files"]["epochs"])).set_index(["trial_number", "epoch"])["val_loss"]
    for one in of_type("epoch", first + second):
        assert one["metrics"]["val_loss"] == recorded[one["trial_number"], one["epoch"]]
    measured = {(one["trial_number"], one["epoch"]) for one in of_type("epoch", first + second)}
    assert measured | {(1, 2)} == {*recorded.index}
    assert {one["trial_number"] for one in of_type("trial_ended", first + second)} == {0, 1, 2, 3}
    assert capsys.readouterr().out.splitlines()[-1].startswith("study_ended {'completed': ")
    words = shlex.split(second[-1]["commands"]["reproduce"])
    assert document("search/reproduce.py", *words[2:])["agrees"]


# The documents


def test_document_names_every_object_and_every_status() -> None:
    text = PROGRAMS.read_text()
    types = set(re.findall(r'"const": "(\w+)"', make_json_schema.FILE.read_text()))
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) >= types
    for status in {*get_args(Status)} - {"running"}:
        assert f"`{status}`" in text, status


def test_table_of_exit_statuses_has_those_of_every_command() -> None:
    (table,) = re.findall(r"^\| command \| exit status .*\n\| ---.*\n((?:\|.*\n)+)", PROGRAMS.read_text(), re.MULTILINE)
    statuses: dict[str, set[int]] = {}
    scripts: list[str] = []
    for row in table.splitlines():
        _, command, status, _ = row.split("|", 3)
        scripts = re.findall(r"`(\S+\.py)`", command) or scripts
        for script in scripts:
            statuses.setdefault(script, set()).add(int(status))
    assert {*statuses} == {*make_commands.COMMANDS}
    assert statuses["search/reproduce.py"] == {EXIT_AGREES, EXIT_DIFFERS, EXIT_INTERRUPTED}
    for script in ("search/run.py", "search/confirm.py"):
        assert statuses[script] == {EXIT_OK, EXIT_NOTHING_COMPLETED, 128 + signal.SIGINT}


def test_instructions_for_programs_are_short() -> None:
    assert len((PROJECT / "AGENTS.md").read_text().splitlines()) <= 40
