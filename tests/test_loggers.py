"""What TensorBoard, MLflow and W&B are shown of a study; studies driven by hand, and a whole one."""

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serial_ray import CompletedRun, run_command
from studies import HandDrivenStudy, metrics, search
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from search.monitoring import loggers as loggers_module
from search.monitoring.loggers import Loggers
from search.record import provenance
from search.record.lookup import SESSION_SETTINGS
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import LoggerName, StudySettings

SMALL_STUDY = [
    *("--dataset", "digits", "--num-samples", "3", "--epochs", "2", "--max-concurrent", "1"),
    *("--no-dashboard", "--name", "small"),
]


def logged(record: StudyRecord, *names: LoggerName) -> Loggers:
    return Loggers(StudySettings(log=names, results_dir=record.folder.parent), record)


def run_trial(study: HandDrivenStudy, loggers: Loggers, *accuracies: float, failure: Failure | None = None) -> None:
    """Run one trial as `RecordingCallback` does; without all its epochs and without a failure it was stopped early."""
    trial_id = f"ray{len(study.record.trials)}"
    study.suggest(trial_id)
    for epoch, accuracy in enumerate(accuracies, start=1):
        study.record.add_epoch(trial_id, metrics(epoch, accuracy), study.timing())
        loggers.epoch(study.record.running(trial_id))
    if failure:
        study.record.add_failure(trial_id, failure, study.timing())
    loggers.ended(study.record.finish(trial_id))


def run_into_interruption(study: HandDrivenStudy, loggers: Loggers, *accuracies: float) -> None:
    """Begin a trial that is interrupted, as the study is."""
    study.suggest("cut off")
    for epoch, accuracy in enumerate(accuracies, start=1):
        study.record.add_epoch("cut off", metrics(epoch, accuracy))
        loggers.epoch(study.record.running("cut off"))
    study.record.interrupt_running()


def go_on(folder: Path, *names: LoggerName, accuracies: tuple[float, ...], epochs_so_far: int) -> None:
    """Resume a study whose last trial was interrupted, and end that trial."""

    record = StudyRecord.open(folder)
    record.requeue_interrupted()
    loggers = logged(record, *names)
    search(record).suggest("again")
    for epoch, accuracy in enumerate(accuracies, start=epochs_so_far + 1):
        record.add_epoch("again", metrics(epoch, accuracy))
        loggers.epoch(record.running("again"))
    loggers.ended(record.finish("again"))
    loggers.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "study"
    folder.mkdir(parents=True)
    return folder


def events_of(folder: Path, trial: int) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / f"trial-{trial:04}")).Reload()


def scalar(events: EventAccumulator, tag: str) -> list[tuple[int, Any]]:
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def hyperparameter_table(events: EventAccumulator) -> dict[str, Any]:
    summaries = events.summary_metadata.items()
    return {
        tag: HParamsPluginData.FromString(metadata.plugin_data.content)
        for tag, metadata in summaries
        if metadata.plugin_data.plugin_name == "hparams"
    }


def test_tensorboard_has_every_number_of_every_epoch(folder: Path) -> None:
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    loggers.close()
    events = events_of(folder, 0)
    assert scalar(events, "val_accuracy") == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert scalar(events, "train_loss") == [(1, 1.0), (2, 0.8), (3, 0.9)]
    assert set(events.Tags()["scalars"]) == {
        *("train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "seconds", "evaluation_seconds"),
        "best_val_accuracy",
    }


def test_tensorboard_has_a_row_of_hyperparameters_for_each_trial(folder: Path) -> None:
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    run_trial(study, loggers, 0.3)
    run_trial(study, loggers, 0.9, failure=Failure("diverged", "train_loss is nan"))
    loggers.close()
    for trial in study.record.trials:
        table = hyperparameter_table(events_of(folder, trial.number))
        row = table["_hparams_/session_start_info"].session_start_info.hparams
        assert row["learning_rate"].number_value == trial.hyperparameters["learning_rate"]
        assert row["optimizer"].string_value == trial.hyperparameters["optimizer"]
        status = table["_hparams_/session_end_info"].session_end_info.status
        assert status == (2 if trial.status == "diverged" else 1)
    assert scalar(events_of(folder, 0), "best_val_accuracy") == [(2, 0.7)]
    assert scalar(events_of(folder, 1), "best_val_accuracy") == [(1, 0.3)]
    assert "best_val_accuracy" not in events_of(folder, 2).Tags()["scalars"]
    (column,) = table["_hparams_/experiment"].experiment.metric_infos  # TensorBoard takes those of any trial
    assert column.name.tag == "best_val_accuracy"


def test_resumed_trial_goes_on_in_its_folder_without_writing_epochs_twice(folder: Path) -> None:
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    run_into_interruption(study, loggers, 0.4)
    loggers.close()
    study.record.close()
    before = (folder / "tensorboard" / "trial-0000").stat().st_mtime_ns
    go_on(folder, "tensorboard", accuracies=(0.6, 0.8), epochs_so_far=1)
    events = events_of(folder, 1)
    assert scalar(events, "val_accuracy") == [(1, 0.4), (2, 0.6), (3, 0.8)]
    assert scalar(events, "best_val_accuracy") == [(3, 0.8)]
    assert (folder / "tensorboard" / "trial-0000").stat().st_mtime_ns == before


def test_what_a_killed_process_wrote_in_part_is_written_again(folder: Path) -> None:
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_into_interruption(study, loggers, 0.4, 0.5)
    loggers.close()
    study.record.close()
    (file,) = (folder / "tensorboard" / "trial-0000").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    go_on(folder, "tensorboard", accuracies=(0.6,), epochs_so_far=2)
    assert scalar(events_of(folder, 0), "val_accuracy") == [(1, 0.4), (2, 0.5), (3, 0.6)]


def test_trials_from_before_a_logger_was_asked_for_are_shown_too(folder: Path) -> None:
    study = HandDrivenStudy(folder)
    study.run_one_of_each()
    study.record.close()
    record = StudyRecord.open(folder)
    logged(record, "tensorboard").close()
    for trial in record.trials:
        events = events_of(folder, trial.number)
        shown = scalar(events, "val_accuracy") if trial.epochs else []
        assert shown == [(epoch.epoch, epoch.val_accuracy) for epoch in trial.epochs]
        assert ("_hparams_/session_end_info" in hyperparameter_table(events)) == trial.has_ended


def test_epochs_that_would_take_too_much_time_are_shown_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers_module, "SHARE_OF_TIME", 1e-9)
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    run_into_interruption(study, loggers, 0.4, 0.5)
    loggers.close()
    assert scalar(events_of(folder, 0), "val_accuracy") == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert scalar(events_of(folder, 1), "val_accuracy") == [(1, 0.4), (2, 0.5)]


def mlflow_runs(folder: Path) -> tuple[Any, dict[int, Any], Any]:
    """The run of a study, those of its trials by number, and a client."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tunesmith").experiment_id])
    (study,) = [run for run in runs if "trial_number" not in run.data.tags]
    trials = {int(run.data.tags["trial_number"]): run for run in runs if "trial_number" in run.data.tags}
    assert len(trials) == len(runs) - 1
    return study, trials, client


@pytest.fixture
def began(folder: Path, monkeypatch: pytest.MonkeyPatch) -> HandDrivenStudy:
    """A study that was started, as MLflow and W&B want to know, where nothing is set for them."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return HandDrivenStudy(folder)


def test_mlflow_has_a_run_for_the_study_and_one_in_it_for_each_trial(folder: Path, began: HandDrivenStudy) -> None:
    pytest.importorskip("mlflow")
    began.record.update(settings=replace(began.record.metadata.settings, num_samples=3))
    loggers = logged(began.record, "mlflow")
    run_trial(began, loggers, 0.5, 0.7, 0.6)
    run_trial(began, loggers, 0.3)
    run_trial(began, loggers, 0.9, failure=Failure("diverged", "train_loss is nan"))
    checkpoint = folder / "checkpoints" / "trial-0000-epoch-0002.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"weights")
    (folder / "report.html").write_text("report")
    loggers.close()
    study, trials, client = mlflow_runs(folder)
    assert (study.info.run_name, study.info.status) == ("study", "FINISHED")
    assert study.data.params["metric"] == "val_accuracy"
    assert study.data.metrics == {"best_val_accuracy": 0.7}
    assert {file.path for file in client.list_artifacts(study.info.run_id)} == {checkpoint.name, "report.html"}
    assert [trials[number].info.status for number in range(3)] == ["FINISHED", "FINISHED", "FAILED"]
    assert [trials[number].data.tags["status"] for number in range(3)] == ["completed", "stopped_early", "diverged"]
    assert trials[2].data.tags["error"] == "train_loss is nan"
    assert trials[0].data.params == {"learning_rate": "0.001", "batch_size": "64", "optimizer": "sgd", "seed": "0"}
    assert trials[0].data.metrics["best_val_accuracy"] == 0.7
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {study.info.run_id}
    history = client.get_metric_history(trials[0].info.run_id, "val_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.7), (3, 0.6)]


def test_mlflow_runs_go_on_with_the_study(folder: Path, began: HandDrivenStudy) -> None:
    pytest.importorskip("mlflow")
    loggers = logged(began.record, "mlflow")
    run_trial(began, loggers, 0.5, 0.7, 0.6)
    run_into_interruption(began, loggers, 0.4)
    loggers.close()
    began.record.close()
    first_study, first_trials, _ = mlflow_runs(folder)
    assert first_trials[1].info.status == "KILLED"
    go_on(folder, "mlflow", accuracies=(0.6, 0.8), epochs_so_far=1)
    study, trials, client = mlflow_runs(folder)
    assert study.info.run_id == first_study.info.run_id
    assert {run.info.run_id for run in trials.values()} == {run.info.run_id for run in first_trials.values()}
    assert trials[1].info.status == "FINISHED"
    history = client.get_metric_history(trials[1].info.run_id, "val_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.4), (2, 0.6), (3, 0.8)]
    assert trials[0].info.end_time == first_trials[0].info.end_time


def test_mlflow_address_is_kept_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://user:secret@host/runs"
    monkeypatch.setattr(sys, "argv", ["search/run.py", "--log", "mlflow", "--mlflow-uri", uri])
    assert "secret" not in provenance.command()
    assert {"log", "mlflow_uri"} <= SESSION_SETTINGS
    with pytest.raises(ValueError, match="mlflow_uri needs log mlflow"):
        StudySettings(mlflow_uri=uri)


def wandb_history(folder: Path, trial: int) -> list[list[tuple[int, float]]]:
    """Steps and accuracies in each offline run of a trial."""
    from wandb.proto.wandb_internal_pb2 import Record

    histories = []
    for file in sorted(folder.glob(f"wandb/offline-run-*-{trial:04}/*.wandb")):
        history, content, position = [], file.read_bytes(), 7
        assert len(content) < 2**15, "a record may be in two parts"
        while position < len(content):  # checksum, length, type
            start, length = position + 7, int.from_bytes(content[position + 4 : position + 6], "little")
            record, position = Record.FromString(content[start : start + length]), start + length
            if record.HasField("history"):
                values = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                history.append((record.history.step.num, json.loads(values["val_accuracy"])))
        histories.append(history)
    return histories


@pytest.fixture
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing may be asked there


def test_wandb_runs_are_kept_offline_and_go_on_with_the_study(
    folder: Path, began: HandDrivenStudy, nobody_logged_in: None, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    loggers = logged(began.record, "wandb")
    run_trial(began, loggers, 0.5, 0.7, 0.6)
    run_trial(began, loggers, 0.9, failure=Failure("diverged", "train_loss is nan"))
    run_into_interruption(began, loggers, 0.4)
    loggers.close()
    began.record.close()
    wandb.teardown()  # as at the end of a process: its service writes the files at the latest when it ends
    time.sleep(1.0)  # W&B names folders by the second, and a study takes longer to start
    go_on(folder, "wandb", accuracies=(0.6, 0.8), epochs_so_far=1)
    wandb.teardown()
    output = capfd.readouterr()
    assert output.err == ""
    assert set(output.out.splitlines()) <= {"  ! waiting for wandb, at most 60 seconds"}  # on a busy machine
    assert wandb_history(folder, 0) == [[(1, 0.5), (2, 0.7), (3, 0.6)]]
    assert wandb_history(folder, 1) == [[(1, 0.9)]]
    assert wandb_history(folder, 2) == [[(1, 0.4)], [(2, 0.6), (3, 0.8)]]


def test_wandb_is_switched_off_if_it_would_have_to_ask_who_you_are(
    began: HandDrivenStudy, nobody_logged_in: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    logged(began.record, "wandb").close()
    sentence = "WANDB_MODE is online, but you are not logged in: run wandb login"
    assert capfd.readouterr().out == f"  ! wandb is switched off (ValueError: {sentence}); the study continues\n"


class Raises:
    """A logger that fails with its second epoch."""

    def __init__(self, _: StudyRecord) -> None:
        self.calls: list[str] = []

    def epoch(self, _: TrialRecord) -> None:
        self.calls.append("epoch")
        if len(self.calls) == 2:
            raise ConnectionError("cannot reach\nhttps://user:secret@host\x1b[2J")

    def ended(self, _: TrialRecord) -> None:
        self.calls.append("ended")

    def close(self) -> None:
        self.calls.append("close")


def test_logger_that_raises_is_switched_off_and_that_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers_module, "_logger_factory", lambda *_: Raises)
    monkeypatch.setattr(loggers_module, "SHARE_OF_TIME", float("inf"))
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    for _ in range(3):
        run_trial(study, loggers, 0.5, 0.7, 0.6)
    loggers.close()
    loggers.close()
    assert [trial.status for trial in study.record.trials] == ["completed"] * 3
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  ! tensorboard is switched off (ConnectionError: cannot reach https://user:***@host")
    assert line.endswith("; the study continues")
    assert "\x1b" not in line


def test_logger_that_cannot_begin_harms_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tensorboard").write_text("in the way")
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    loggers.close()
    assert study.record.trials[0].status == "completed"
    assert capsys.readouterr().out.count("tensorboard is switched off (") == 1


def test_study_does_not_wait_for_a_logger_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hangs(Raises):
        def epoch(self, _: TrialRecord) -> None:
            threading.Event().wait()

    monkeypatch.setattr(loggers_module, "_logger_factory", lambda *_: Hangs)
    monkeypatch.setattr(loggers_module, "MAX_WAIT_SECONDS", 0.2)
    study = HandDrivenStudy(folder)
    loggers = logged(study.record, "tensorboard")
    run_trial(study, loggers, 0.5, 0.7, 0.6)
    loggers.close()
    assert "tensorboard has not written everything" in capsys.readouterr().out


def test_unknown_logger_is_refused() -> None:
    with pytest.raises(ValueError, match="log must be one of tensorboard, mlflow, wandb, got aim"):
        StudySettings(log=("aim",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="log must name each tool only once"):
        StudySettings(log=("tensorboard", "tensorboard"))


def run_search(*options: str, cwd: Path) -> CompletedRun:
    return run_command("search/run.py", *options, "--results-dir", str(cwd / "results"), cwd=cwd)


def test_missing_package_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.summary", None)
    monkeypatch.delitem(sys.modules, "search.monitoring.tensorboard_logger", raising=False)
    run = run_search(*SMALL_STUDY, "--log", "tensorboard", cwd=tmp_path)
    assert run.status == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: log tensorboard needs the package tensorboardX (")
    assert line.endswith("pip install tensorboardX")
    assert not (tmp_path / "results").exists()


def test_whole_study_is_shown_in_tensorboard(tmp_path: Path) -> None:
    run = run_search(*SMALL_STUDY, "--log", "tensorboard", cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "  log        tensorboard; " in run.stdout
    assert "  ! " not in run.stdout
    record = StudyRecord.open(tmp_path / "results" / "small")
    assert len(record.trials) == 3
    for trial in record.trials:
        events = events_of(record.folder, trial.number)
        assert scalar(events, "test_loss") == [(epoch.epoch, epoch.test_loss) for epoch in trial.epochs]
        assert "_hparams_/session_end_info" in hyperparameter_table(events)
    assert record.metadata.settings.log == ()
    assert "log" not in record.study.user_attrs["settings"]
