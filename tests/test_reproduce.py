"""Trials trained again from a record: equal to the last digit, or how far off, where, and what has changed."""

import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from studies import metadata, search
from test_model_folder import OWN_NETWORK

from search import reproduce
from search.record import provenance
from search.record.lookup import reproduce_line
from search.record.provenance import Session
from search.record.study_record import StudyRecord
from search.record.trial import Failure, Timing, timed_json
from search.task import checksums
from training import loop
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError, train
from training.metrics import EpochMetrics
from training.threads import restored_threads

EPOCHS = 3
POINTS: list[dict[str, Any]] = [
    {"learning_rate": 0.001, "batch_size": 64, "optimizer": "rmsprop"},
    {"learning_rate": 0.01, "batch_size": 128, "optimizer": "adam"},
    {"learning_rate": 0.1, "batch_size": 32, "optimizer": "rmsprop"},
]
SESSION = Session(
    time="then",
    command="python search/run.py",
    versions=provenance.versions(),
    git_commit=None,
    machine=provenance.machine(),
    max_concurrent_trials=1,
    cpus_per_trial=1,
)


class TrainedStudy:
    """A record on disk of trials that were really trained, without Ray."""

    def __init__(self, folder: Path, data: ImageData, **settings: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True)
        told = metadata(epochs=EPOCHS, **settings)
        dataset = replace(told.images, sha256=data.sha256)
        told = replace(told, dataset=dataset, sessions=[SESSION], code=checksums.code("mlp"))
        self.record = StudyRecord.create(folder, told)
        for point in POINTS:
            self.record.study.enqueue_trial(point)
        self.search = search(self.record)
        self.data = data

    def run_trial(
        self,
        epochs: int,
        change: Callable[[EpochMetrics], EpochMetrics] = lambda metrics: metrics,
        failure: Failure | None = None,
    ) -> None:
        """Train one trial for so many epochs, and record what a function makes of them."""
        trial_id = f"ray{len(self.record.trials)}"
        self.search.suggest(trial_id)
        trial = self.record.running(trial_id)
        training = train(self.record.metadata.trial_config(trial), self.data)
        for number in range(epochs):
            timing = Timing(session=0, node=0, pid=1, waiting_seconds=0.0, reported=float(number))
            self.record.add_epoch(trial_id, change(next(training)), timing)
        if failure:
            self.record.add_failure(trial_id, failure)
        self.record.finish(trial_id)

    def close(self) -> Path:
        self.record.close()
        return self.record.folder


def words(text: str) -> str:
    """A text whose lines may be broken anywhere."""
    return " ".join(text.split())


@pytest.fixture
def study(tmp_path: Path, digits: ImageData) -> TrainedStudy:
    return TrainedStudy(tmp_path / "study", digits)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["search/reproduce.py", *map(str, words)])
        with restored_threads():
            try:
                return reproduce.main()
            except SystemExit as end:
                return int(str(end.code))

    return run


def test_completed_and_stopped_trials_agree_and_the_study_stays_as_it_is(
    study: TrainedStudy, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    study.run_trial(EPOCHS)
    study.run_trial(1)
    recorded = study.record.trials[0].epochs
    folder = study.close()
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}
    assert run(folder, 0) == 0
    output = capsys.readouterr().out
    for metrics in recorded:
        assert f"    {metrics.epoch}     {metrics.val_accuracy:.4f}     {metrics.val_accuracy:.4f} " in output
    assert "  completed after 3 of 3 epochs\n" in output
    assert words(output).endswith(
        "The trial agrees with its record: all metrics of 3 epochs are equal to the last digit."
    )
    assert run(folder, 1) == 0
    assert words(capsys.readouterr().out).endswith(
        "The trial agrees with its record: all metrics of 1 epoch are equal to the last digit."
    )
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}
    assert after == before


def test_difference_is_told_with_its_epoch_its_size_and_what_has_changed(
    study: TrainedStudy, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def worse(metrics: EpochMetrics) -> EpochMetrics:
        return replace(metrics, val_loss=(metrics.val_loss or 0) + 0.25) if metrics.epoch == 2 else metrics

    study.run_trial(EPOCHS, change=worse)
    old, machine = SESSION.versions | {"torch": "1.0"}, replace(SESSION.machine, cpus=999)
    other = replace(SESSION, versions=old, machine=machine)
    study.record.update(sessions=[other], code=study.record.metadata.code | {"loop": "another"})
    assert run(study.close(), 0) == 1
    output = capsys.readouterr().out
    assert [
        line.split()[-1] for line in output.splitlines() if line.strip()[:1] in "123" and line.startswith("    ")
    ] == [
        "equal",
        "differs",
        "equal",
    ]
    assert "1 of 3 epochs differ, the first is epoch 2; the largest differences are val_loss 0.25 in epoch 2." in words(
        output
    )
    now = provenance.versions()["torch"], provenance.machine().cpus
    assert f"These have changed since the study was run: torch 1.0 (now {now[0]}); cpus 999 (now {now[1]});" in words(
        output
    )
    assert "code: loop of an unknown commit (now" in words(output)


def test_difference_without_a_change_says_so(
    study: TrainedStudy, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    study.run_trial(1, change=lambda metrics: replace(metrics, train_loss=metrics.train_loss * (1 + 1e-15)))
    assert run(study.close(), 0) == 1
    output = capsys.readouterr().out
    assert re.search(r"largest differences are train_loss \d\.?\d*e-1[56] in epoch 1", output)
    assert "Versions, machine and code are the same" in words(output)


def test_resumed_trial_agrees_with_the_threads_of_each_session(
    study: TrainedStudy, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run_trial(EPOCHS)
    study.record.update(sessions=[SESSION, replace(SESSION, cpus_per_trial=7)])
    (stored,) = study.record.study.get_trials(deepcopy=False)[:1]
    (trial,) = study.record.trials
    moved = timed_json(trial.epochs[2], replace(trial.timings[3], session=1))
    study.record.change(lambda: study.record.storage.set_trial_user_attr(stored._trial_id, "epoch 3", moved))
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    assert run(study.close(), 0) == 0
    assert used[:3] == [1, 1, 7]


def test_diverged_trial_must_diverge_in_the_same_epoch(
    study: TrainedStudy, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study.run_trial(1, failure=Failure("diverged", "train_loss is nan in epoch 2 after 64 images"))
    folder = study.close()
    assert run(folder, 0) == 1
    assert "not recorded" in capsys.readouterr().out

    def diverges(config: Any, data: Any, checkpoint: Any) -> Any:
        yield next(train(config, data))
        raise TrainingDivergedError("train_loss is nan in epoch 2 after 64 images")

    monkeypatch.setattr(loop, "train", diverges)
    assert run(folder, 0) == 0
    assert "and it diverged as recorded: train_loss is nan in epoch 2" in words(capsys.readouterr().out)

    def diverges_at_once(config: Any, data: Any, checkpoint: Any) -> Any:
        raise TrainingDivergedError("train_loss is nan in epoch 1")
        yield

    monkeypatch.setattr(loop, "train", diverges_at_once)
    assert run(folder, 0) == 1
    output = capsys.readouterr().out
    assert "the repeated training diverged in epoch 1 (train_loss is nan in epoch 1), " in words(output)
    assert "the recorded one diverged in epoch 2 (train_loss" in words(output)


def test_trial_that_raised_must_raise_the_same(
    study: TrainedStudy, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run_trial(0, failure=Failure("exception", "ValueError: boom"))
    folder = study.close()
    assert run(folder, 0) == 1

    for text, status in (("boom", 0), ("bang", 1)):

        def raises(config: Any, data: Any, checkpoint: Any, text: str = text) -> Any:
            raise ValueError(text)
            yield

        monkeypatch.setattr(loop, "train", raises)
        assert run(folder, 0) == status


def test_trial_whose_worker_died_is_compared_as_far_as_it_came(study: TrainedStudy, run: Callable[..., int]) -> None:
    study.run_trial(1, failure=Failure("worker_died", "worker died: killed"))
    assert run(study.close(), 0) == 0


def test_mistakes_are_one_sentence(
    study: TrainedStudy, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    study.run_trial(0, failure=Failure("worker_died", "worker died: killed"))
    folder = study.close()
    for words, sentence in (
        ([folder, 7], "study study has no trial 7: its trials are 0 to 0"),
        ([folder, 0], "trial 0 has finished no epoch, so there is nothing to compare: worker died: killed"),
        (["nowhere", 0, "--results-dir", tmp_path], "there is no study nowhere"),
        ([folder, "best"], "trial must be a whole number"),
        ([folder], "TRIAL is missing"),
    ):
        assert run(*words) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {sentence}"), told
        assert told.count("\n") == 1


def test_other_images_are_refused(
    study: TrainedStudy, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    study.run_trial(1)
    study.record.update(dataset=replace(study.record.metadata.images, sha256="another"))
    assert run(study.close(), 0) == 2
    assert "the images of digits are not those on which the study was run" in capsys.readouterr().err


def test_network_that_a_sent_record_names_runs_only_when_named_again(
    tmp_path: Path, digits: ImageData, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "network" / "mine.py"
    file.parent.mkdir()
    file.write_text(OWN_NETWORK)
    study = TrainedStudy(tmp_path / "study", digits, network=f"{file}:build")
    study.run_trial(1)
    folder = study.close()
    trial = asdict(study.record.trials[0])
    assert trial["status"] == "stopped_early"
    (file.parent / "was-run").unlink()
    for words, sentence in (
        ([], "study study needs the code of"),
        (["--network", "other.py:build"], "study study was run with --network"),
    ):
        assert run(folder, 0, *words) == 2
        assert sentence in capsys.readouterr().err
        assert not (file.parent / "was-run").exists()
    assert run(folder, 0, "--network", f"{file}:build") == 0


def test_command_of_the_summary_names_the_code_that_is_run(study: TrainedStudy) -> None:
    study.run_trial(1)
    trial, metadata = study.record.trials[0], study.record.metadata
    assert reproduce_line(study.record.folder, None, study.record.metadata.settings, trial.number).endswith("study 0")
    settings = replace(metadata.settings, dataset="/images.py:load", network="/network.py:build")
    study.record.metadata = replace(metadata, settings=settings)
    command = reproduce_line(study.record.folder, None, study.record.metadata.settings, trial.number)
    assert command.endswith(" 0 --network /network.py:build --dataset /images.py:load")
