"""A small run of `benchmarks/chaos.py`, and what it counts, by hand."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from audit import Audit, Tally, epochs_begun_again
from begun_epochs import BegunEpoch, configuration
from chaos import broken_promises, run_studies, table
from killed_study import IMAGES, StudySize
from processes import Process, descendants, end
from studies import FULL_EPOCHS, HandDrivenStudy
from uninterrupted import count_different


def note(file: Path, hyperparameters: dict[str, object], *epochs: int) -> None:
    with file.open("a") as notes:
        notes.writelines(f"{configuration(hyperparameters)} {epoch} 1 {time.monotonic_ns()}\n" for epoch in epochs)


@pytest.mark.ray
def test_study_survives_kills(tmp_path: Path) -> None:
    size = StudySize(num_samples=4, epochs=12)
    tally = run_studies(IMAGES, 1, 0, tmp_path / "studies", size)
    assert broken_promises(tally, size) == []
    assert tally.driver_kills + tally.worker_kills == 1
    assert tally.epochs_begun - tally.epochs_begun_again == tally.studies * size.num_samples * size.epochs


def test_epochs_begun_again_are_counted_by_kill_and_configuration() -> None:
    begun = ["a 1", "b 1", "b 2", "KILL", "b 1", "b 2", "KILL", "a 1", "b 2", "b 3"]
    notes = [BegunEpoch(note[0], int(note[2:]), process=1) for note in begun if note != "KILL"]
    assert epochs_begun_again(notes, kills_at=[3, 5]) == {(1, "b"): 2, (2, "a"): 1, (2, "b"): 1}


def test_audit_counts_a_finished_trial_that_is_trained_again(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    audit = Audit(tmp_path, tmp_path / "notes", FULL_EPOCHS)
    trial = study.run_trial(0.5, 0.6, 0.7)
    note(tmp_path / "notes", dict(trial.hyperparameters), 1, 2, 3)
    audit.look()
    assert audit.tally() == Tally(studies=1, finished=1, epochs_begun=3)
    note(tmp_path / "notes", dict(trial.hyperparameters), 1)
    tally = audit.tally()
    assert (tally.repeated, tally.epochs_begun, tally.epochs_begun_again) == (1, 4, 1)


def test_audit_counts_a_finished_trial_that_changed_or_is_not_kept(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    audit = Audit(tmp_path, tmp_path / "notes", FULL_EPOCHS)
    trial = study.run_trial(0.5, 0.6, 0.7)
    audit.look()
    assert audit.tally().lost == 0
    assert audit.tally(kept=[]).lost == 1
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'seed'")
    audit.look()
    assert audit.tally(kept=[configuration(dict(trial.hyperparameters))]).lost == 1


def test_audit_counts_running_trials_and_missing_epochs(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_trial(0.5, 0.6)
    study.search.suggest("cut off")
    audit = Audit(tmp_path, tmp_path / "notes", FULL_EPOCHS)
    audit.look()
    tally = audit.tally()
    assert (tally.finished, tally.incomplete, tally.left_running) == (1, 1, 1)


def test_trials_with_other_numbers_than_without_kills_are_counted(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("killed", "uninterrupted", "other")]
    for folder, last in zip(folders, (0.7, 0.7, 0.8), strict=True):
        folder.mkdir()
        HandDrivenStudy(folder).run_trial(0.5, 0.6, last)
    killed, uninterrupted, other = folders
    assert count_different(killed, uninterrupted) == 0
    assert count_different(other, uninterrupted) == 1


def test_every_broken_promise_is_named() -> None:
    size = StudySize(num_samples=2)
    assert broken_promises(Tally(studies=1, finished=2, most_begun_again=1), size) == []
    bad = Tally(studies=2, finished=3, lost=1, repeated=2, most_begun_again=2, left_running=4)
    assert broken_promises(bad, size) == [
        "1 finished trials lost",
        "2 trials repeated",
        "4 trials left running",
        "2 epochs begun again by one trial after one kill",
        "3 trials finished in 2 studies of 2",
    ]


def test_tallies_add_up_in_the_table() -> None:
    tally = Tally(studies=1, finished=8, most_begun_again=1, seconds=10)
    tally.add(Tally(studies=1, finished=7, most_begun_again=0, seconds=5.4))
    assert tally == Tally(studies=2, finished=15, most_begun_again=1, seconds=15.4)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table({"Tool": tally}).splitlines()]
    assert cells[:2] == [["", "Tool"], ["---", "---:"]]
    assert ["trials finished", "15"] in cells


def test_descendants_are_found_and_ended() -> None:
    nested = "import subprocess; subprocess.run(['sleep', '60'])"
    parent = subprocess.Popen([sys.executable, "-c", nested])
    below: list[Process] = []
    while [process.title for process in below] != ["sleep 60"]:
        below = descendants(parent.pid)
    parent.kill()
    parent.wait()
    assert end(below, grace_seconds=0) == ["sleep 60"]
    assert end(below, grace_seconds=10) == []
