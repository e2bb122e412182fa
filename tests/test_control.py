"""Control of a study that runs: what users ask of it is done within an epoch, is recorded, and survives a kill."""

import fcntl
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from serial_ray import CompletedRun, SerialTuner, StartedRun, run_command
from studies import search

from search.algorithms.stopping import StudyStopper
from search.engine.recording_callback import RecordingCallback
from search.record.folder import StudyFolder, is_locked
from search.record.mailbox import Mailbox, ask_study
from search.record.metadata import StudyMetadata
from search.record.requests import AnsweredRequest, Request, assignments, check_words, is_paused, new_request
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from search.space.encoding import SpaceEncoding
from search.space.toml_file import read_point, read_tables

TRAINING = """
import time
from pathlib import Path

HURRY = Path(__file__).with_name("hurry")


def train(parameters, checkpoint):
    for epoch in range(checkpoint.load() + 1, 41):
        end = time.monotonic() + 0.1
        while time.monotonic() < end and not HURRY.exists():
            time.sleep(0.01)
        checkpoint.save(epoch)
        yield {"loss": parameters["slope"] / epoch}
"""
SPACE = '[slope]\nlow = 0.0\nhigh = 8.0\n[kind]\nchoices = ["flat", "steep"]\n'
EPOCHS = 40
OWN = StudySettings(metric="loss", mode="min", num_samples=9, train_function="own.py:train", resume="no new one")


class Controlled:
    """A study of slow trials in a process of its own, without Ray, and what `control.py` says of it."""

    def __init__(self, place: Path, *options: str, scheduler: str = "none", real: bool = False) -> None:
        self.real = real
        self.place, self.folder = place, place / "results" / "study"
        (place / "own.py").write_text(TRAINING)
        (place / "space.toml").write_text(SPACE)
        function = ["--train-function", f"{place}/own.py:train", "--metric", "loss", "--mode", "min"]
        words = [*function, "--space", f"{place}/space.toml", "--epochs", str(EPOCHS), "--scheduler", scheduler]
        self._start(*words, "--num-samples", "3", "--name", "study", "--results-dir", str(place / "results"), *options)

    def resume(self) -> None:
        self._start("--resume", str(self.folder), "--train-function", f"{self.place}/own.py:train")

    def _start(self, *words: str) -> None:
        self.run = StartedRun("search/run.py", *words, "--json", real=self.real)
        self.read = 0

    def ask(self, *words: str, status: int = 0) -> dict[str, Any]:
        run = run_command("search/control.py", str(self.folder), *words, "--json")
        assert run.status == status, (run.stdout, run.stderr)
        answer: dict[str, Any] = json.loads(run.stdout)
        return answer

    def told(self, *words: str) -> str:
        """Ask for something that is done; returns the answer."""
        answer = self.ask(*words)["answered"]
        assert answer["request"]["words"] == [*words]
        return str(answer["answer"])

    def refused(self, *words: str) -> str:
        return str(self.ask(*words, status=2)["message"])

    def wait_until(self, **fields: object) -> None:
        """Wait until the status has these fields."""
        end = time.monotonic() + 60
        while not fields.items() <= (status := self.ask("status")).items():
            assert time.monotonic() < end, status

    def wait_for(self, kind: str, **fields: object) -> dict[str, Any]:
        """Wait for the next object of this type and with these fields."""
        end = time.monotonic() + 60
        while True:
            lines = [line for line in self.run.output.splitlines(keepends=True) if line.startswith("{")]
            for line in lines[self.read :]:
                if not line.endswith("\n"):
                    break
                self.read += 1
                one: dict[str, Any] = json.loads(line)
                if one["type"] == kind and fields.items() <= one.items():
                    return one
            assert self.run.is_running(), self.run.output
            assert time.monotonic() < end, self.run.output
            time.sleep(0.01)

    def hurry(self) -> tuple[int, dict[str, Any]]:
        """Let the trials run on fast; returns the exit status and the last object."""
        (self.place / "hurry").touch()
        status, output = self.run.end()
        return status, json.loads([line for line in output.splitlines() if line.startswith("{")][-1])

    def trials(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "trials.csv").set_index("trial_number").sort_index()


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[Controlled]:
    study = Controlled(tmp_path)
    with study.run:
        yield study


def test_study_is_driven_to_its_end_by_objects_and_requests_alone_and_a_kill_loses_nothing(
    controlled: Controlled,
) -> None:
    controlled.wait_for("epoch", trial_number=0, epoch=2)
    controlled.told("pause")
    paused = controlled.ask("status")
    assert (paused["state"], paused["running"]) == ("paused", [])
    assert paused["trials"] == {"interrupted": 1}
    assert controlled.told("enqueue", "slope=7.5,kind=steep") == "trial 1 has these values"
    assert controlled.told("set", "num-samples=2") == "the study has 2 trials now"
    assert controlled.told("enqueue", "slope=6") == (
        "trial 2 has these values, and begins after 1 queued trial; the study has 3 trials now"
    )
    assert controlled.told("resume") == "the study goes on"
    continued = controlled.wait_for("trial_started", trial_number=0)
    assert continued["epochs"] >= 2
    controlled.told("stop-trial", "0")
    controlled.wait_for("trial_ended", trial_number=0, status="stopped_early")
    controlled.wait_for("epoch", trial_number=1, epoch=2)
    controlled.run.send(signal.SIGKILL)
    controlled.run.end()
    assert controlled.ask("status")["state"] == "ended"
    assert "does not run" in controlled.refused("pause")
    controlled.resume()
    status, ended = controlled.hurry()
    assert (status, ended["type"], ended["reason"]) == (0, "study_ended", None)
    trials = controlled.trials()
    assert trials["status"].tolist() == ["stopped_early", "completed", "completed"]
    assert trials.loc[[1, 2], "slope"].tolist() == [7.5, 6.0]
    assert trials.loc[1, "kind"] == "steep"
    asked = json.loads((controlled.folder / "study.json").read_text())["requests"]
    assert [one["request"]["words"][0] for one in asked] == [
        "pause",
        "enqueue",
        "set",
        "enqueue",
        "resume",
        "stop-trial",
    ]
    report = (controlled.folder / "report.html").read_text()
    assert "enqueue slope=7.5,kind=steep; trial 1 has these values" in report
    assert asked[0]["request"]["origin"] in report


def test_study_that_is_asked_to_stop_ends_after_the_epoch_and_can_be_resumed(controlled: Controlled) -> None:
    controlled.wait_for("epoch", trial_number=0, epoch=1)
    assert controlled.ask()["state"] == "running"
    controlled.told("stop")
    status, output = controlled.run.end()
    assert status == 1  # no trial has ended
    assert re.search(r"Ended by a request from \w.* To continue: python search/run.py --resume", output)
    assert controlled.trials()["status"].tolist() == ["interrupted"]
    assert not (controlled.folder / ".requests").exists()


def test_study_that_is_asked_to_stop_is_not_confirmed(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path, "--confirm", "1x2")
    with controlled.run:
        controlled.wait_for("epoch", trial_number=1, epoch=1)
        controlled.told("stop")
        status, ended = controlled.hurry()
    assert (status, ended["type"], ended["trials"]) == (0, "study_ended", {"completed": 1, "interrupted": 1})
    assert ended["reason"].startswith("Ended by a request")
    assert "Confirm: " in controlled.run.output


def test_only_what_can_be_done_is_done(controlled: Controlled) -> None:
    controlled.wait_for("epoch", trial_number=0, epoch=1)
    assert controlled.refused("resume") == "the study is not paused"
    assert controlled.refused("stop-trial", "5") == "no trial 5 has begun"
    assert controlled.refused("set", "max-concurrent=1000000").startswith("max-concurrent must be from 1 to ")
    assert controlled.refused("set", "num-samples=0").startswith("num-samples must be >= 1")
    assert controlled.refused("set", "num-samples=1_0") == "num-samples must be a whole number, got 1_0"
    assert controlled.refused("set", "num-samples=many") == "num-samples must be a whole number, got many"
    assert "time_budget must be a time like 90s" in controlled.refused("set", "time-budget=soon")
    assert "the search space has slope 0.0 to 8.0" in controlled.refused("enqueue", "slope=9")
    controlled.told("enqueue", "slope=1")
    assert controlled.told("set", "num-samples=1") == "the study has 1 trial now, so 1 queued trial will not begin"
    assert controlled.told("set", "num-samples=5") == "the study has 5 trials now"
    assert controlled.told("set", "num-samples=+2") == "the study has 7 trials now"
    assert controlled.told("set", "max-concurrent=1") == "at most 1 trial at a time from now on"
    assert re.fullmatch(
        r"the time budget of this session is 2h, of which 1:\d\d:\d\d is left", controlled.told("set", "time-budget=2h")
    )
    assert controlled.told("set", "time-budget=none") == "the study has no time budget any more"
    assert "which is used up" in controlled.told("set", "time-budget=1s")
    _, output = controlled.run.end()
    assert "The time budget is used up." in output


def test_paused_trial_of_promotion_can_be_stopped_for_good(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path, "--no-full-baseline", "--num-samples", "9", scheduler="promotion")
    with controlled.run:
        controlled.wait_for("trial_ended", trial_number=0, status="paused")
        controlled.told("pause")
        assert controlled.told("stop-trial", "0") == "trial 0 will not go on after 1 epoch"
        controlled.wait_for("trial_ended", trial_number=0, status="stopped_early")
        assert controlled.refused("stop-trial", "0") == "trial 0 has ended: stopped early"
        controlled.told("resume")
        _, ended = controlled.hurry()
    assert ended["trials"]["stopped_early"] >= 1
    assert controlled.trials().loc[0, "status"] == "stopped_early"


def study_asked_when(
    place: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, *words: str
) -> tuple[CompletedRun, list[tuple[str, str]]]:
    """A study of one fast trial that is asked for something when a method has ended for the first time.

    Returns:
        Its run, and the first word of each request with its answer.
    """
    (place / "own.py").write_text(TRAINING)
    (place / "space.toml").write_text(SPACE)
    (place / "hurry").touch()
    asked, original = request(*words), getattr(owner, method)

    def ask_then(self: object) -> None:
        original(self)
        with suppress(FileExistsError):
            (place / "asked").touch(exist_ok=False)
            leave(asked, place / "study")

    monkeypatch.setattr(owner, method, ask_then)
    function = ["--train-function", f"{place}/own.py:train", "--metric", "loss", "--mode", "min"]
    study = ["--name", "study", "--results-dir", str(place), "--num-samples", "1", "--space", f"{place}/space.toml"]
    run = run_command("search/run.py", *function, *study, "--epochs", "2", "--scheduler", "none")
    asked_for = json.loads((place / "study" / "study.json").read_text())["requests"]
    return run, [(one["request"]["words"][0], one["answer"]) for one in asked_for]


def leave(asked: Request, study: Path) -> None:
    """Put a request into the mailbox of a study, for which nobody waits."""
    (study / ".requests").mkdir(exist_ok=True)
    (study / ".requests" / f"{asked.id}.asked.json").write_text(json.dumps(asdict(asked)))


def test_trial_that_is_added_while_ray_ends_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, answers = study_asked_when(tmp_path, monkeypatch, SerialTuner, "fit", "enqueue", "slope=7")
    assert run.status == 0
    assert answers == [("enqueue", "trial 1 has these values; the study has 2 trials now")]
    assert pd.read_csv(tmp_path / "study" / "trials.csv")["status"].tolist() == ["completed"] * 2


def test_nothing_is_done_when_the_trials_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, answers = study_asked_when(tmp_path, monkeypatch, RecordingCallback, "stop_paused", "enqueue", "slope=7")
    assert answers == [("enqueue", "the trials of the study have ended")]
    assert "1 of 1 trial" in run.stdout
    assert "To continue" not in run.stdout


def test_request_that_waits_for_a_complete_study_is_done_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_asked_when(tmp_path, monkeypatch, SerialTuner, "fit", "pause")
    leave(request("enqueue", "slope=7"), tmp_path / "study")
    run = run_command(
        "search/run.py", "--resume", str(tmp_path / "study"), "--train-function", f"{tmp_path}/own.py:train"
    )
    assert "2 of 2 trials" in run.stdout
    assert not Mailbox(tmp_path / "study").has_requests()


@pytest.mark.ray
def test_trials_of_the_real_ray_make_room_wait_and_go_on(tmp_path: Path) -> None:
    controlled = Controlled(tmp_path, "--max-concurrent", "2", "--num-samples", "2", "--no-dashboard", real=True)
    with controlled.run:
        controlled.wait_for("epoch", trial_number=0)
        controlled.wait_for("epoch", trial_number=1)
        assert len(controlled.ask("status")["running"]) == 2
        controlled.told("set", "max-concurrent=1")
        controlled.wait_until(trials={"running": 1, "interrupted": 1})
        controlled.told("pause")
        controlled.wait_until(trials={"interrupted": 2}, state="paused")
        controlled.told("set", "max-concurrent=2")
        controlled.told("resume")
        controlled.wait_until(trials={"running": 2})
        status, ended = controlled.hurry()
    assert (status, ended["trials"]) == (0, {"completed": 2})
    assert ended["time"]["paused"] > 0
    epochs = pd.read_csv(controlled.folder / "epochs.csv")
    assert epochs.groupby("trial_number")["epoch"].apply(list).tolist() == [[*range(1, EPOCHS + 1)]] * 2


# who may wait, and for what


def request(*words: str) -> Request:
    return new_request(words, "ada on host7")


def answered(one: Request) -> AnsweredRequest:
    return AnsweredRequest(request=one, session=0, seconds=1.0, is_done=True, answer="done")


def test_request_that_nobody_takes_is_withdrawn_unless_it_lasts(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    mailbox.open()
    assert (tmp_path / ".requests").stat().st_mode & 0o777 == 0o700
    assert mailbox.ask(request("pause"), runs=lambda: False) is None
    assert mailbox.ask(request("enqueue", "slope=1"), runs=lambda: False) is None
    (taken,) = mailbox.take()
    assert taken.words == ["enqueue", "slope=1"]
    mailbox.open()  # the process that had taken it has died
    assert mailbox.take() == [taken]
    mailbox.answer(answered(taken))
    mailbox.open()
    assert mailbox.take() == []
    mailbox.close()
    assert not (tmp_path / ".requests").exists()


def test_only_files_of_requests_are_read(tmp_path: Path) -> None:
    mailbox, outside = Mailbox(tmp_path), tmp_path / "outside.json"
    mailbox.open()
    outside.write_text(json.dumps(asdict(request("pause"))))
    (tmp_path / ".requests" / "link.asked.json").symlink_to(outside)
    os.mkfifo(tmp_path / ".requests" / "pipe.asked.json")
    (tmp_path / ".requests" / "deep.asked.json").write_text("[" * 100_000)
    (tmp_path / ".requests" / "other.asked.json").write_text('{"words": ["rm"]}')
    assert mailbox.take() == []
    assert outside.exists()
    assert list((tmp_path / ".requests").iterdir()) == []
    (tmp_path / ".requests" / "a.asked.json").mkdir()
    (tmp_path / ".requests" / "b.asked.json").write_text(json.dumps(asdict(request("pause"))))
    assert [one.words for one in mailbox.take()] == [["pause"]]


def test_study_of_another_user_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Mailbox(tmp_path).open()
    study = StudyFolder(tmp_path)
    monkeypatch.setattr("search.record.mailbox.write_atomically", mock.Mock(side_effect=PermissionError))
    expected = f"study {tmp_path.name} cannot be asked to pause: only the user who runs it can do this"
    with pytest.raises(ValueError, match=re.escape(expected)):
        ask_study(tmp_path, ["pause"], "bob")
    study.close()


def test_request_that_is_removed_is_not_waited_for(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    mailbox.open()

    def runs() -> bool:
        for file in (tmp_path / ".requests").iterdir():
            file.unlink()
        return True

    assert mailbox.ask(request("enqueue", "slope=1"), runs=runs) is None


def test_mailbox_is_a_folder_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".requests").symlink_to(tmp_path / "elsewhere")
    mailbox = Mailbox(tmp_path)
    mailbox.open()
    assert not (tmp_path / ".requests").is_symlink()
    (tmp_path / ".requests").rmdir()
    mailbox.take()
    assert (tmp_path / ".requests").is_dir()
    (tmp_path / ".requests").rmdir()
    (tmp_path / ".requests").write_text("")
    mailbox.open()
    assert (tmp_path / ".requests").is_dir()


def test_who_looks_whether_a_study_runs_is_not_taken_for_the_study_and_does_not_keep_it_from_starting(
    tmp_path: Path,
) -> None:
    StudyFolder(tmp_path).close()
    with (tmp_path / ".lock").open() as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        assert not is_locked(tmp_path)
        threading.Timer(0.05, fcntl.flock, [another, fcntl.LOCK_UN]).start()
        study = StudyFolder(tmp_path)
    assert is_locked(tmp_path)
    study.close()
    assert not is_locked(tmp_path)


def test_request_that_was_done_is_not_done_again_and_is_answered_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = read_tables({"slope": {"low": 0.0, "high": 1.0}}, None)
    record = StudyRecord.create(tmp_path, StudyMetadata(settings=OWN, space=space))
    done = answered(request("enqueue", "slope=1"))
    record.update(requests=[done])
    Mailbox(tmp_path).open()
    locked = iter([True, False])
    monkeypatch.setattr("search.record.mailbox.is_locked", lambda _: next(locked))
    monkeypatch.setattr("search.record.mailbox.new_request", lambda *_: done.request)
    assert ask_study(tmp_path, done.request.words, "ada") == done


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "a request is one of pause, resume, stop, stop-trial, enqueue, set, got ''"),
        (["halt"], "a request is one of pause"),
        (["pause", "now"], "nothing follows pause, got now"),
        (["enqueue", os.fsdecode(b"kind=\xff")], "a request is text in UTF-8, got 'kind=\\udcff'"),
        (["stop-trial"], "stop-trial is followed by N, the number of the trial"),
        (["stop-trial", "-1"], "the number of the trial, got -1"),
        (["stop-trial", "1" * 30], "the number of the trial"),
        (["enqueue"], "enqueue is followed by NAME=VALUE"),
        (["enqueue", "slope"], "got 'slope'"),
        (["set", "epochs=3"], "num-samples, time-budget or max-concurrent, got epochs=3"),
        (["set", "num-samples"], "got num-samples"),
    ],
)
def test_words_that_are_no_request_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_words(words)


def test_commas_stand_between_values_or_are_part_of_one() -> None:
    assert assignments(["enqueue", "a=1,b=x, c=2", "d=3"]) == ["a=1", "b=x", "c=2", "d=3"]
    assert assignments(["enqueue", "layers=64,32,rate=0.1"]) == ["layers=64,32", "rate=0.1"]


def test_point_is_read_with_the_types_and_the_conditions_of_the_space() -> None:
    tables = {
        "optimizer": {"choices": ["sgd", "adam"]},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
        "width": {"ordered": [8, 16]},
        "name": {"choices": ["1", "two"]},
        "depth": {"value": 3},
    }
    space = read_tables(tables, None)
    point = read_point(space, ["optimizer=sgd", "momentum=0", "width=16", "name=1", "depth=3"], None)
    assert point == {"optimizer": "sgd", "momentum": 0.0, "width": 16, "name": "1"}
    assert isinstance(point["momentum"], float)
    with pytest.raises(ValueError, match=re.escape("momentum=0.5: it has no value where optimizer adam is given")):
        read_point(space, ["momentum=0.5", "optimizer=adam"], None)
    for assignment, sentence in {
        "width=9": "the search space has width 8, 16",
        "depth=4": "it is fixed at 3 here",
        "momentum=0.5": "only for some values of optimizer, which must be given, too",
        "wdth=8": "did you mean width?",
    }.items():
        with pytest.raises(ValueError, match=re.escape(sentence)):
            read_point(space, [assignment], None)
    assert SpaceEncoding(space).encode_part(point) == {"optimizer": "sgd", "momentum": 0.0, "width": 16, "name": "1"}


# what Ray is told

NOWHERE = {"node": "n"}


def test_trials_above_the_limit_end_with_their_epoch_and_go_on_later() -> None:
    stopper = StudyStopper()
    stopper.held_back = {"b"}
    assert [stopper.lets_wait(name, "n") for name in "ab"] == [False, True]
    stopper.held_back = set()
    assert stopper.interrupts("b")  # it is about to end, whatever is asked meanwhile
    assert not stopper.interrupts("a")
    stopper.is_paused = True
    stopper.stopped.add("a")
    assert stopper("a", NOWHERE)
    assert not stopper.interrupts("a")


def test_no_trial_is_proposed_while_there_is_no_room(tmp_path: Path) -> None:
    space = read_tables({"slope": {"low": 0.0, "high": 1.0}}, None)
    algorithm = search(StudyRecord.create(tmp_path, StudyMetadata(settings=OWN, space=space)))
    algorithm._stopper.max_concurrent = 1
    assert isinstance(algorithm.suggest("a"), dict)
    assert algorithm.suggest("b") is None
    algorithm._stopper.max_concurrent = 2
    assert isinstance(algorithm.suggest("b"), dict)
    algorithm._stopper.set_time_budget(0.0)
    assert algorithm.suggest("c") is None  # Ray asks again, also if it was told before that there is nothing
    algorithm._stopper.set_time_budget(None)
    algorithm._stopper.max_concurrent = 3
    assert isinstance(algorithm.suggest("c"), dict)
    algorithm._record.interrupt_running()
    algorithm._stopper.is_paused = True
    assert algorithm.suggest("d") is None
    assert is_paused([answered(request("pause"))], 0)
    assert not is_paused([answered(request("pause"))], 1)  # a study that is resumed goes on
