import csv
from pathlib import Path

import pandas as pd
import pytest
from studies import HandDrivenStudy

from search.outputs.files import StudyFiles
from search.outputs.tables import epoch_table, trial_table
from training.atomic_file import write_atomically

TRIAL_COLUMNS = (
    "trial_number,trial_id,status,learning_rate,batch_size,optimizer,epochs,best_epoch,"
    "val_accuracy,val_loss,test_accuracy,test_loss,train_loss,seconds,"
    "peak_memory_mb,peak_gpu_memory_mb,micro_batch_size,seed,error"
)
EPOCH_COLUMNS = (
    "trial_number,epoch,train_loss,val_accuracy,val_loss,test_accuracy,test_loss,seconds,evaluation_seconds,"
    "session,node,pid,waiting_seconds,reported"
)


@pytest.fixture
def study(tmp_path: Path) -> HandDrivenStudy:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()
    return study


def test_files_have_exactly_the_documented_columns(study: HandDrivenStudy, tmp_path: Path) -> None:
    StudyFiles(study.record).write()
    assert (tmp_path / "trials.csv").read_text().splitlines()[0] == TRIAL_COLUMNS
    assert (tmp_path / "epochs.csv").read_text().splitlines()[0] == EPOCH_COLUMNS


def test_files_of_a_study_without_trials_have_their_columns_too(tmp_path: Path) -> None:
    StudyFiles(HandDrivenStudy(tmp_path).record).write()
    assert (tmp_path / "trials.csv").read_text() == TRIAL_COLUMNS + "\n"
    assert (tmp_path / "epochs.csv").read_text() == EPOCH_COLUMNS + "\n"


def test_trials_are_best_first_with_the_metrics_of_their_best_epoch(study: HandDrivenStudy) -> None:
    table = trial_table(study.record)
    assert table["trial_number"].tolist() == [1, 0, 6, 2, 3, 4, 5]
    best = table.iloc[0]
    assert (best["epochs"], best["best_epoch"], best["val_accuracy"]) == (3, 2, 0.9)
    assert best[["val_loss", "test_accuracy", "test_loss", "train_loss"]].tolist() == pytest.approx(
        [0.3, 0.89, 0.4, 0.6]
    )


def test_cells_are_empty_only_where_nothing_was_measured(study: HandDrivenStudy, tmp_path: Path) -> None:
    StudyFiles(study.record).write()
    with (tmp_path / "trials.csv").open(newline="") as stream:
        empty_cells = {
            int(row["trial_number"]): {name for name, cell in row.items() if not cell} for row in csv.DictReader(stream)
        }
    metrics = {"val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_loss"}
    memory = {"peak_memory_mb", "peak_gpu_memory_mb", "micro_batch_size"}  # of a trial that never ran
    no_error = {"error"} | memory
    never_reported = {"best_epoch", "seconds"} | metrics | memory
    assert empty_cells == {
        0: no_error, 1: no_error, 2: no_error, 3: memory, 4: never_reported, 5: memory, 6: no_error
    }  # fmt: skip


def test_epochs_are_in_order_of_trial_and_epoch(study: HandDrivenStudy) -> None:
    table = epoch_table(study.record)
    keys = list(zip(table["trial_number"], table["epoch"], strict=True))
    assert keys == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (5, 1), (6, 1)]


def test_numbers_survive_the_file_exactly(study: HandDrivenStudy, tmp_path: Path) -> None:
    StudyFiles(study.record).write()
    table = pd.read_csv(tmp_path / "trials.csv", dtype={"learning_rate": str}).set_index("trial_number")
    for trial in study.record.trials:
        assert float(str(table.loc[trial.number, "learning_rate"])) == trial.hyperparameters["learning_rate"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trials.csv"
    write_atomically(file, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
