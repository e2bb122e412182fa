"""Studies of other programs: read as these wrote them, reported without what they lack, and refused in one sentence."""

import csv
import gzip
import json
import math
import pickle
import sqlite3
import zipfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command
from studies import HandDrivenStudy
from test_security import RunsCode

from search.analysis.comparison import compare, overview
from search.importing.guessing import guess
from search.importing.names import folder_name, hyperparameter_names, metric_names
from search.importing.reading import SourceOptions, read_source
from search.importing.sweep import read_sweep
from search.importing.write import ImportChoices, write
from search.outputs import comparison_page
from search.outputs.tables import epoch_table, trial_table
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.space.search_space import describe
from search.space.toml_file import read_space
from search.study_result import load_study
from training.config import PROJECT

STUDIES = PROJECT / "tests" / "foreign_studies.zip"
"""Made by `benchmarks/foreign_studies.py --for-tests`, which names the versions."""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    with zipfile.ZipFile(STUDIES) as archive:
        archive.extractall(folder)
    return folder


def imported(source: Path, results: Path, *, study: str | None = None, **choices: Any) -> StudyRecord:
    options = SourceOptions(study=study, metric=choices.get("metric"), parameters=choices.pop("parameters", ()))
    found, path = read_source(str(source), options)
    return StudyRecord.open(write(found, path, ImportChoices(results_dir=results, **choices)))


def remarks_of(record: StudyRecord) -> list[str]:
    assert record.metadata.origin is not None
    return record.metadata.origin.remarks


def report(source: Path, results: Path, *options: str) -> CompletedRun:
    return run_command("search/report.py", "--import", str(source), *options, "--results-dir", str(results))


def table(folder: Path, *rows: dict[str, Any], name: str = "table.csv") -> Path:
    file = folder / name
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)
    return file


def trials(number: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"params_lr": 10 ** -(1 + place * 0.3), "params_width": 16 << place % 3, "val_loss": 1 / (1 + place)} | more
        for place in range(number)
    ]


# Optuna


def test_report_leaves_out_what_the_source_lacks_and_says_so(foreign: Path, tmp_path: Path) -> None:
    source = foreign / "optuna-5-conditional.db"
    before = source.read_bytes()
    done = report(source, tmp_path)
    assert done.status == 0, done.stderr
    assert source.read_bytes() == before
    assert [path.name for path in foreign.glob("optuna-5-conditional.db*")] == [source.name]
    page = (tmp_path / "conditional-models" / "report.html").read_text()
    lacks = "The source has no seeds and no values per step, so the report leaves them out."
    for text in (lacks, "Left out: 1 trial that had not begun."):
        assert text in page
        assert text in " ".join(done.stdout.split())
    for absent in ("Learning curves", "<h2>Workers", "epochs saved", "reproduce.py", "sampler tpe"):
        assert absent not in page
    assert "Reproduce" not in done.stdout
    assert "svm/C: numbers from 0.001 to 1000.0 (log) with model svm" in done.stdout
    again = run_command("search/report.py", "conditional-models", "--results-dir", str(tmp_path))
    assert again.status == 0, again.stderr


@pytest.mark.parametrize("version", [2, 5])
def test_trials_are_those_of_every_version_of_optuna(foreign: Path, tmp_path: Path, version: int) -> None:
    record = imported(foreign / f"optuna-{version}-conditional.db", tmp_path)
    assert record.metadata.settings.task.name.startswith(f"imported from Optuna {version}.")
    statuses = Counter(trial.status for trial in record.trials)
    assert statuses == {"completed": 12, "failed": 3, "diverged": 1, "interrupted": 1}
    assert describe(record.space)["forest/depth"] == {"low": 2, "high": 64, "log": True, "when": {"model": "forest"}}
    assert [trial.known_seed for trial in record.trials] == [None] * 17
    assert all(trial.seconds is not None and trial.seconds < 60 for trial in record.trials if trial.has_ended)
    assert {trial.failure.error for trial in record.trials if trial.status == "diverged" and trial.failure} == {
        "its value is inf"
    }


def test_old_and_new_optuna_wrote_the_same_values(foreign: Path, tmp_path: Path) -> None:
    """The objective is the same; the first trials of the sampler are random, and equal in both versions."""
    old, new = (imported(foreign / f"optuna-{version}-conditional.db", tmp_path / str(version)) for version in (2, 5))
    for record in (old, new):
        for trial in record.trials:
            if trial.status == "completed" and "svm/C" in trial.hyperparameters:
                expected = 0.2 + 0.05 * math.log10(float(trial.hyperparameters["svm/C"])) ** 2
                assert abs(trial.best_value - expected) < 0.05


def test_value_of_a_trial_is_the_one_that_optuna_has(foreign: Path, tmp_path: Path) -> None:
    record = imported(foreign / "optuna-2-pruned.db", tmp_path)
    with closing(sqlite3.connect(foreign / "optuna-2-pruned.db")) as database:
        stored = dict(
            database.execute("SELECT number, value FROM trial_values JOIN trials USING (trial_id)").fetchall()
        )
    values = {trial.number: trial.best_value for trial in record.trials if trial.status == "completed"}
    assert values == pytest.approx({number: stored[number] for number in values})
    best = best_trial(record.trials)
    assert best is not None
    assert best.best_value == max(values.values())
    assert {len(trial.epochs) for trial in record.trials if trial.status == "completed"} == {8}
    assert record.epoch_limit == 8
    assert "Its 8 steps from 0 to 7 are the epochs 1 to 8 here." in remarks_of(record)
    assert epoch_table(record)["value"].notna().all()


def test_last_value_counts_where_it_is_the_value_and_an_earlier_one_is_better(tmp_path: Path) -> None:
    file = tmp_path / "falling.db"
    study = optuna.create_study(storage=f"sqlite:///{file}", direction="maximize")
    for rate in (0.1, 0.2):
        trial = study.ask()
        trial.suggest_float("rate", 0, 1)
        for step, value in enumerate((rate, 3 * rate, 2 * rate)):
            trial.report(value, step)
        study.tell(trial, 2 * rate)
    record = imported(file, tmp_path / "results")
    assert [trial.best_value for trial in record.trials] == pytest.approx([0.2, 0.4])
    assert [trial.best_epoch.epoch for trial in record.trials if trial.best_epoch] == [3, 3]


def test_values_per_step_of_another_quantity_stay_apart(foreign: Path, tmp_path: Path) -> None:
    record = imported(foreign / "optuna-4-other.db", tmp_path, metric="distance")
    assert record.metric == "distance"
    assert record.metadata.metrics == ["value_by_step"]
    assert [len(trial.curve) for trial in record.trials] == [1] * 8
    table_of_epochs = epoch_table(record)
    assert table_of_epochs["value_by_step"].notna().sum() == 40
    assert not record.metadata.has_curves


def test_study_and_objective_are_named_where_there_are_several(foreign: Path, tmp_path: Path) -> None:
    for source, options, sentence in (
        ("optuna-4-several.db", [], r"it has 2 studies; name one of them with --study: first \(6 trials\), second"),
        ("optuna-4-several.db", ["--study", "third"], "it has no study third; it has first"),
        ("optuna-3-two.db", [], "2 objectives, and one is imported: name it with --metric, one of loss, parameters"),
    ):
        done = report(foreign / source, tmp_path, *options)
        assert done.status == 2
        (line,) = done.stderr.splitlines()
        assert sentence.replace("\\", "") in line
    assert len(imported(foreign / "optuna-4-several.db", tmp_path, study="second").trials) == 6
    by_name = imported(foreign / "optuna-3-two.db", tmp_path, metric="parameters")
    by_number = imported(foreign / "optuna-3-two.db", tmp_path, metric="1")
    assert by_name.metric == by_number.metric == "parameters"
    assert trial_table(by_name)["parameters"].tolist() == trial_table(by_number)["parameters"].tolist()


def test_what_sqlite_has_not_yet_moved_into_its_file_is_read_and_nothing_is_written(
    foreign: Path, tmp_path: Path
) -> None:
    """Another program may have the file open, with its newest writes in a log beside it."""
    source = tmp_path / "open" / "study.db"
    source.parent.mkdir()
    source.write_bytes((foreign / "optuna-2-pruned.db").read_bytes())
    with closing(sqlite3.connect(source)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE studies SET study_name = 'newest'")
        database.commit()
        before = {file.name: file.read_bytes() for file in source.parent.iterdir()}
        assert len(before["study.db-wal"]) > 0
        assert imported(source, tmp_path / "results").folder.name == "newest"
        assert {file.name: file.read_bytes() for file in source.parent.iterdir()} == before


@pytest.mark.parametrize("kept", [0, 50, 4096, 60_000])
def test_damaged_storage_is_refused_in_one_sentence(foreign: Path, tmp_path: Path, kept: int) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes((foreign / "optuna-2-pruned.db").read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"damaged.db cannot be imported: "):
        imported(damaged, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM studies",
        "UPDATE trial_params SET distribution_json = '{'",
        "UPDATE trial_params SET distribution_json = '[]'",
        "UPDATE trial_params SET distribution_json = replace(distribution_json, '\"choices\"', '\"other\"')",
        "UPDATE trial_params SET param_value = 99",
        "UPDATE trials SET state = 'ASLEEP'",
        "UPDATE study_directions SET direction = 'SIDEWAYS'",
        "DROP TABLE trial_values",
        "CREATE VIEW spy AS SELECT * FROM trials",
        "UPDATE trials SET datetime_start = 'yesterday'",
    ],
)
def test_storage_with_foreign_content_is_refused_in_one_sentence(foreign: Path, tmp_path: Path, statement: str) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes((foreign / "optuna-2-conditional.db").read_bytes())
    with closing(sqlite3.connect(damaged)) as database, database:
        database.execute(statement)
    with pytest.raises(ValueError, match=r"cannot be imported: |does not say whether"):
        imported(damaged, tmp_path / "results")


# Tables


def test_kinds_of_columns_are_guessed() -> None:
    def guessed(*values: Any) -> Any:
        found = guess(values)
        return found and found[0]

    assert guessed("0.1", "0.001", "1e-5", "3e-4") == {"low": 1e-05, "high": 0.1, "log": True}
    assert guessed("0.5", "0.001", "0.4", "0.3") == {"low": 0.001, "high": 0.5, "log": False}
    assert guessed("16", "32", "64", "16", "32", "64") == {"ordered": [16, 32, 64]}
    assert guessed("1", "2", "7") == {"low": 1, "high": 7, "log": False}
    assert guessed("True", "false", "True") == {"choices": [False, True]}
    assert guessed("adam", "sgd", "adam") == {"choices": ["adam", "sgd"]}
    assert guessed("1", "2", "auto") == {"choices": ["1", "2", "auto"]}
    assert guessed("inf", "1.0", "inf") == {"choices": ["1.0", "inf"]}
    assert guessed("3", "3.0") == {"value": 3}
    assert guessed(*(f"run {number}" for number in range(40))) is None


def test_tables_of_other_programs_are_read(foreign: Path, tmp_path: Path) -> None:
    named = ("learning_rate", "batch_size", "optimizer")
    for name, choices, expected in (
        ("optuna-5.csv", {"mode": "min"}, {"completed": 12, "failed": 3, "diverged": 1, "interrupted": 1}),
        ("sklearn.csv", {"metric": "mean_test_score"}, {"completed": 30}),
        ("mlflow.csv", {}, {"completed": 15}),
        ("wandb.csv", {"metric": "val_loss", "parameters": named}, {"completed": 18, "failed": 2}),
        ("wandb-api.csv", {}, {"completed": 20}),
    ):
        record = imported(foreign / name, tmp_path, **choices)
        assert Counter(trial.status for trial in record.trials) == expected, name
        assert len(record.space) == 3, name
        assert record.metadata.guessed_ranges == [*record.space], name
    assert describe(record.space)["batch_size"] == {"ordered": [32, 64, 128]}
    assert describe(record.space)["learning_rate"]["log"] is True


def test_hyperparameters_of_a_wandb_table_are_the_columns_before_its_metrics(foreign: Path, tmp_path: Path) -> None:
    record = imported(foreign / "wandb.csv", tmp_path, metric="val_loss")
    assert [*record.space] == ["learning_rate", "batch_size", "optimizer"]
    assert any("--parameters names others" in remark for remark in remarks_of(record))


def test_rows_of_steps_become_epochs(tmp_path: Path) -> None:
    rows = [
        {"trial": name, "step": step, "param:lr": rate, "val_loss": rate + 1 / step, "seconds": 2.5, "seed": 7}
        for name, rate in (("a", 0.1), ("b", 0.2))
        for step in (10, 20, 30)[: 3 if name == "a" else 2]
    ]
    record = imported(table(tmp_path, *rows), tmp_path / "results")
    assert [len(trial.epochs) for trial in record.trials] == [3, 2]
    assert record.trials[0].best_value == pytest.approx(0.1 + 1 / 30)
    assert [trial.seconds for trial in record.trials] == [7.5, 5.0]
    assert [trial.known_seed for trial in record.trials] == [7, 7]
    assert "Its 3 steps from 10 to 30 are the epochs 1 to 3 here." in remarks_of(record)


def test_names_and_values_of_a_hostile_table_are_escaped(tmp_path: Path) -> None:
    name = "params_\x1b[2J=\nlr"
    rows = [row | {name: 0.1 * place, "state": "COMPLETE"} for place, row in enumerate(trials(8))]
    rows[2]["val_loss"], rows[3]["val_loss"] = "nan", "-inf"
    done = report(table(tmp_path, *rows, name="=cmd \x1b.csv"), tmp_path, "--name", "hostile")
    assert done.status == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\x1b" not in (tmp_path / "hostile" / "trials.csv").read_text()
    record = StudyRecord.open(tmp_path / "hostile")
    assert [trial.status for trial in record.trials][2:4] == ["diverged", "diverged"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n", "no row of a trial"),
        ("a,b\n1,2\n", "name its hyperparameters with --parameters; its columns are a, b"),
        ("params_a,params_a,loss\n1,2,3\n", "several columns params_a"),
        ("params_a,loss\n1,2,3\n", "row 2 has more cells"),
        ("params_a,loss\n1,2\n1,3\n", "none of its hyperparameters has several values"),
        ("params_a,quality\n1,2\n2,3\n", "whether the highest quality is the best: add --mode"),
        ("params_a,x,y\n1,2,1\n2,3,1\n", "name it with --metric, one of x, y"),
        ("params_a,loss,state\n1,2,odd\n2,3,\n", "no trial has state 'odd'"),
        ("params_a,name\n1,x\n2,y\n", "name it with --metric, one of none"),
        ("trial,step,params_a,loss\n1,1,1,2\n1,1,1,3\n", "trial 1 has step 1 twice"),
        ("trial,step,params_a,loss\n1,1,1,2\n1,2,2,3\n", "trial 1 has several values of a: 1, 2"),
        ("\0\1\2", "binary file"),
        ("{}", "a file of JSON"),
        ('{"op_code": 0}', "journal of Optuna"),
    ],
)
def test_table_that_cannot_be_meant_is_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        imported(file, tmp_path / "results")
    assert sentence in str(refusal.value)
    assert not (tmp_path / "results").exists()


def test_conditions_are_found_and_what_is_missing_without_reason_is_said(tmp_path: Path) -> None:
    rows = [
        {"params_opt": "sgd" if place % 2 else "adam", "params_momentum": 0.1 * place if place % 2 else ""}
        | {"params_decay": 0.01 * place if place != 4 else "", "loss": 1.0 + place % 7 / 10}
        | {"params_data": "" if place % 5 == 1 else "big" if place % 3 else "small"}
        for place in range(24)
    ]
    done = report(table(tmp_path, *rows), tmp_path)  # its analysis does without what is missing
    assert done.status == 0, done.stderr
    record = StudyRecord.open(tmp_path / "table")
    assert describe(record.space)["momentum"]["when"] == {"opt": "sgd"}
    assert "when" not in describe(record.space)["decay"]
    remarks = remarks_of(record)
    assert "1 trial has no decay, without a reason in other columns." in remarks


def test_names_are_made_fit() -> None:
    assert hyperparameter_names(["lr", "-lr", "l=r", "\x1b"]) == {
        "lr": "lr",
        "-lr": "lr_2",
        "l=r": "l_r",
        "\x1b": "x1b",
    }
    assert metric_names(["loss", "1", "a(b)", "a[b]"]) == {
        "loss": "loss",
        "1": "metric_1",
        "a(b)": "a_b_",
        "a[b]": "a_b__2",
    }
    folders = {"../../etc": "etc", "a b/c": "a-b-c", "latest": "imported", "…": "imported"}
    assert {name: folder_name(name) for name in folders} == folders


# Ray Tune, TensorBoard, and what may run code


def ray_experiment(folder: Path) -> Path:
    """Files as Ray 2 writes them: three trials, of which one failed and one was stopped by a scheduler."""
    states = []
    for number, (rate, epochs, done) in enumerate([(0.1, 3, False), (0.01, 1, True), (0.001, 2, False)]):
        trial = folder / f"train_abc_{number:05}_{number}_lr={rate}"
        trial.mkdir(parents=True)
        (trial / "params.json").write_text(json.dumps({"lr": rate, "net": {"width": 8 << number}, "data": None}))
        results = [
            {
                "val_loss": rate + 1 / epoch,
                "info": {"grad": 1.0},
                "training_iteration": epoch,
                "trial_id": f"abc_{number:05}",
            }
            | {"time_this_iter_s": 0.5, "done": done and epoch == epochs, "config": {"lr": rate}, "pid": 7}
            for epoch in range(1, epochs + 1)
        ]
        (trial / "result.json").write_text("\n".join(map(json.dumps, results)) + "\n")
        (trial / "params.pkl").write_bytes(b"\x80\x04never read")
        states.append(json.dumps({"trial_id": f"abc_{number:05}", "status": "TERMINATED", "results": {"value": "80"}}))
    (trial / "error.txt").write_text("Traceback\n  File x\nRuntimeError: \x1b[2Jno memory\n")
    (folder / "experiment_state-2026.json").write_text(json.dumps({"trial_data": [[state, "{}"] for state in states]}))
    return folder


def test_experiment_of_ray_tune_is_read(tmp_path: Path) -> None:
    record = imported(ray_experiment(tmp_path / "experiment"), tmp_path / "results", metric="val_loss")
    assert [trial.status for trial in record.trials] == ["completed", "stopped_early", "failed"]
    assert [trial.seconds for trial in record.trials] == [1.5, 0.5, 1.0]
    assert [*record.space] == ["lr", "net/width"]
    assert record.metadata.metrics == ["info/grad"]
    assert record.objective.counted == "last"
    failure = record.trials[2].failure
    assert failure is not None
    assert failure.error == "RuntimeError: \\x1b[2Jno memory"


def test_damaged_experiment_of_ray_tune_is_refused_or_loses_a_line(tmp_path: Path) -> None:
    folder = ray_experiment(tmp_path / "experiment")
    first = sorted(folder.iterdir())[1]
    with (first / "result.json").open("a") as stream:
        stream.write('{"val_loss": 0.')
    record = imported(folder, tmp_path / "results", metric="val_loss")
    assert "Left out: 1 line of results that cannot be read." in remarks_of(record)
    (first / "params.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"params.json in \S+ is damaged"):
        imported(folder, tmp_path / "results", metric="val_loss")


def test_runs_of_tensorboard_are_read(foreign: Path, tmp_path: Path) -> None:
    record = imported(foreign / "tensorboard-torch", tmp_path, metric="val_loss")
    assert len(record.trials) == 16
    assert [len(trial.curve) for trial in record.trials] == [5] * 16
    assert {*record.space} == {"lr", "batch_size", "nesterov"}
    assert describe(record.space)["schedule"] == {"value": "cosine"}
    assert record.metadata.metrics == ["hparam/accuracy"]
    for trial in record.trials:
        accuracy = trial.epochs[-1].values["hparam/accuracy"]
        assert trial.best_value == pytest.approx(1 - accuracy, abs=1e-6)


def test_damaged_runs_of_tensorboard_are_refused(foreign: Path, tmp_path: Path) -> None:
    file = next(path for path in (foreign / "tensorboard-torch").rglob("*tfevents*"))
    runs = tmp_path / "runs" / "one"
    runs.mkdir(parents=True)
    (runs / file.name).write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="none of its runs has hyperparameters"):
        imported(runs.parent, tmp_path / "results")
    (runs / file.name).write_bytes(b"x" * 40)
    with pytest.raises(ValueError, match="a checksum is wrong"):
        imported(runs.parent, tmp_path / "results")


def test_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    for name in ("trials.pkl", "trials.csv"):
        (tmp_path / name).write_bytes(pickle.dumps(RunsCode(tmp_path / "marker")))
        done = report(tmp_path / name, tmp_path)
        assert done.status == 2
        (line,) = done.stderr.splitlines()
        assert "it may be a pickle, which could run code" in line
    assert not (tmp_path / "marker").exists()


def test_source_that_is_missing_or_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, sentence in (("none.db", "there is no such file"), ("empty", "neither trials of Ray Tune")):
        with pytest.raises(ValueError, match=sentence):
            imported(tmp_path / source, tmp_path / "results")
    servers = {"mysql://root:secret@host/x": "must be PostgreSQL, got mysql", "redis://x": "got (redis|unreadable)"}
    for address, sentence in servers.items():
        with pytest.raises(ValueError, match=sentence) as refusal:
            read_source(address, SourceOptions())
        assert "secret" not in str(refusal.value)


# A study like any other


def test_imported_study_is_compared_and_replayed(tmp_path: Path) -> None:
    rows = [
        {"trial": place, "epoch": epoch, "params_lr": 0.1**place, "val_loss": 1 - place / 1000 + 1 / epoch}
        for place in range(8)
        for epoch in (1, 2, 3)
    ]
    one, other = (imported(table(tmp_path, *rows, name=f"{name}.csv"), tmp_path / "results") for name in ("a", "b"))
    (significance,) = compare([one, other]).significances
    assert "no significant difference" in significance.sentence
    names = ("a", "b", "--results-dir", str(tmp_path / "results"))
    done = run_command("search/compare.py", *names)
    assert done.status == 0, done.stderr
    page = (tmp_path / "results" / "comparison.html").read_text()
    assert "Best value over epochs" in page
    assert "Best value over time" not in page
    assert run_command("search/report.py", "a", *names[2:]).status == 0
    replayed = run_command("search/replay.py", str(tmp_path / "results" / "a" / "epochs.csv"), "--seeds", "2")
    assert replayed.status == 0, replayed.stderr
    assert "8 trials, 24 epochs. The best is trial 7: val_loss 1.3263 in epoch 3." in replayed.stdout
    assert "seconds" not in replayed.stdout


def test_imported_study_is_compared_with_one_on_images(tmp_path: Path) -> None:
    """On which images the trials were trained, only the user knows; metrics that one of the two lacks stay empty."""
    theirs = [{"params_lr": 0.1**place, "val_accuracy": 0.5 + place / 100} for place in range(8)]
    other = imported(table(tmp_path, *theirs), tmp_path / "results")
    (tmp_path / "ours").mkdir()
    ours = HandDrivenStudy(tmp_path / "ours")
    for number in range(8):
        ours.run_trial(0.5 + number / 100)
    compared = compare([ours.record, other])
    assert len(compared.significances) == 1
    assert overview(compared.groups)["test_accuracy"].isna().tolist() == [False, True]
    assert comparison_page.render(compared)


def test_python_program_reads_an_imported_study(tmp_path: Path) -> None:
    imported(table(tmp_path, *trials(8)), tmp_path, name="mine")
    study = load_study("mine", results_dir=tmp_path)
    assert study.best_value == pytest.approx(1 / 8)
    assert len(study.trials) == 8
    assert "8 trials" in repr(study)
    assert "mine" in study._repr_html_()
    with pytest.raises(ValueError, match="its training is not known here"):
        study.reproduce(0)


def test_training_of_an_imported_study_is_refused_in_one_sentence(tmp_path: Path) -> None:
    imported(table(tmp_path, *trials(8)), tmp_path, name="mine")
    for script, *words in (
        ("search/run.py", "--resume", "mine"),
        ("search/run.py", "--resume", "mine", "--fork"),
        ("search/confirm.py", "mine"),
        ("search/reproduce.py", "mine", "0"),
    ):
        done = run_command(script, *words, "--results-dir", str(tmp_path))
        assert done.status == 2, done.stdout
        (line,) = done.stderr.splitlines()
        assert "its training is not known here" in line


def test_new_study_learns_from_an_imported_one(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "def train(config):\n    yield dict.fromkeys(['val_loss', 'loss'], config['lr'])\n"
    )
    (tmp_path / "space.toml").write_text("[lr]\nlow = 1e-3\nhigh = 1.0\nlog = true\n")
    rows = [{"params_lr": 10.0**-place, "val_loss": 10.0**-place} for place in range(5)]
    imported(table(tmp_path, *rows), tmp_path / "results", name="mine")
    words = ["--train-function", "train.py:train", "--space", "space.toml", "--num-samples", "2"]
    words += ["--warm-start", "mine", "--results-dir", "results"]
    done = run_command("search/run.py", *words, "--metric", "val_loss", cwd=tmp_path)
    assert done.status == 0, done.stdout + done.stderr
    assert "4 of 5 trials" in " ".join(done.stdout.split())
    other = run_command("search/run.py", *words, "--metric", "loss", "--json", "--name", "other", cwd=tmp_path)
    assert other.status == 0, other.stderr
    assert "of the best of study mine, which has metric val_loss (here loss)" in " ".join(other.stderr.split())
    trials = pd.read_csv(tmp_path / "results" / "other" / "trials.csv")
    assert trials["lr"].min() == 1e-3  # the best of the imported study, 1e-4, is not in the space


def test_compressed_table_is_read_and_a_name_is_not_taken_twice(tmp_path: Path) -> None:
    plain = table(tmp_path, *trials(6))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    folders = [imported(packed, tmp_path / "results").folder.name for _ in range(2)]
    assert folders == ["packed", "packed-2"]
    with pytest.raises(ValueError, match="name packed is taken"):
        imported(packed, tmp_path / "results", name="packed")
    packed.write_bytes(packed.read_bytes()[:30])
    with pytest.raises(ValueError, match="damaged gzip file"):
        imported(packed, tmp_path / "results")


# Search spaces

WANDB_SWEEP = """
program: train.py
method: bayes
metric: {name: val_loss, goal: minimize}
early_terminate: {type: hyperband}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-5, max: 0.1}
  decay: {distribution: log_uniform, min: -9.2103404, max: -4.6051702}
  batch_size: {values: [64, 16, 32]}
  optimizer: {values: [sgd, adam]}
  layers: {min: 1, max: 5}
  dropout: {distribution: q_uniform, min: 0.0, max: 0.5, q: 0.1}
  epochs: {value: 10}
  net: {parameters: {width: {distribution: int_uniform, min: 8, max: 64}}}
  noise: {distribution: normal, mu: 0, sigma: 1}
  odds: {values: [1, 2], probabilities: [0.1, 0.9]}
"""
HYDRA_SWEEP = """
hydra:
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    direction: minimize
    n_trials: 20
    params:
      lr: tag(log, interval(0.00001, 0.1))
      x: interval(-5.5, 5.5)
      width: range(8, 65, step=8)
      optimizer: choice(sgd, adam)
      size: choice(1, 2, 4)
      fixed: 3
      odd: glob(*)
"""


def test_sweeps_become_search_spaces_with_a_list_of_what_cannot(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(WANDB_SWEEP)
    done = run_command("search/report.py", "--import", "sweep.yaml", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert describe(read_space(tmp_path / "space.toml", None)) == {
        "lr": {"low": 1e-5, "high": 0.1, "log": True},
        "decay": {"low": 1e-4, "high": 0.01, "log": True},
        "batch_size": {"ordered": [16, 32, 64]},
        "optimizer": {"choices": ["sgd", "adam"]},
        "layers": {"low": 1, "high": 5, "log": False},
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.1, "log": False},
        "net.width": {"low": 8, "high": 64, "log": False},
    }
    listed = " ".join(done.stdout.split())
    for left_out in ("program: --command or", "method: --sampler", "metric: --metric and --mode", "early_terminate:"):
        assert f"Not in it: {left_out}" in listed
    assert "epochs cannot be searched: --epochs sets it" in listed
    assert "noise: distribution normal has no bounds" in listed
    assert "odds: its values have probabilities" in listed
    again = run_command("search/report.py", "--import", "sweep.yaml", cwd=tmp_path)
    assert again.status == 2  # space.toml is not overwritten
    (tmp_path / "hydra.yaml").write_text(HYDRA_SWEEP)
    sweep = read_sweep(tmp_path / "hydra.yaml")
    assert describe(sweep.space) == {
        "lr": {"low": 1e-5, "high": 0.1, "log": True},
        "x": {"low": -5.5, "high": 5.5, "log": False},
        "width": {"low": 8, "high": 64, "step": 8, "log": False} | {"high": 56},
        "optimizer": {"choices": ["sgd", "adam"]},
        "size": {"ordered": [1, 2, 4]},
        "fixed": {"value": 3},
    }
    assert any(one.startswith("odd: glob(*) is none of") for one in sweep.left_out)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [", "not YAML"),
        ("1", "no parameters"),
        ("a: 1", "neither parameters"),
        ("parameters: {}", "there is none"),
        ("parameters: {x: {distribution: normal}}", "x: distribution normal has no bounds"),
        ("x: &x [1]\nparameters: *x", "an alias"),
        ("parameters: !!python/object/apply:os.system ['touch marker']", "not YAML"),
    ],
)
def test_sweep_that_is_no_space_is_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        read_sweep(tmp_path / "sweep.yaml")
    assert sentence in str(refusal.value)
