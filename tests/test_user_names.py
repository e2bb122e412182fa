"""Hyperparameters and metrics that have the names of ours: each keeps its value everywhere."""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file
from serial_ray import run_command

from search.monitoring.logger import best_name, hyperparameters_and_seed, metric_values
from search.outputs.tables import trial_table
from search.record.columns import distinct_columns
from search.record.study_record import StudyRecord
from search.space.search_space import parse
from training.model.model_folder import read_metadata
from training.networks.network_config import config_type

pytestmark = pytest.mark.usefixtures("drawn_charts")

TAKEN = """
import math

METRICS = {"seconds": 7.0, "epoch": 8.0, "timing": 9.0, "done": 10.0, "config": 11.0, "pid": 12.0, "error": 13.0,
           "training_iteration": 14.0, "best_loss": 15.0, "objective": 16.0, "class": 17.0, "values": 18.0,
           "val/f1": 19.0, "metadata": None}

def train(config):
    for epoch in range(2):
        seen = {f"saw_{name}": value for name, value in config.items() if name not in ("epochs", "kind")}
        late = {"late": 3.0} if epoch else {}
        yield {"loss": config["number"] + epoch, **METRICS, **seen, **late, "rising": math.inf if epoch == 0 else 4.0}
"""
NAMES = ("number", "checkpoint", "epochs_recorded", "seed", "status", "trial_number", "trial_id", "env", "loss")
NETWORK = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Hyperparameters:
    checkpoint: str = "linear"
    number: int = 3
    status: int = 0
    val_accuracy: float = 0.0

def build(config: Hyperparameters, input_shape, classes):
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    if config.checkpoint == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.number), nn.Linear(config.number, classes))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a training function that gives its hyperparameters and metrics the names of ours."""
    folder = tmp_path_factory.mktemp("taken")
    (folder / "train.py").write_text(TAKEN)
    tables = [f"[{name}]\nlow = {100 * place}\nhigh = {100 * place + 9}\n" for place, name in enumerate(NAMES, start=1)]
    (folder / "space.toml").write_text("\n".join(tables))
    options = f"--space {folder}/space.toml --metric loss --mode min --num-samples 3 --epochs 2 --scheduler none"
    where = f"--results-dir {folder} --name own --train-function {folder}/train.py:train"
    ended = run_command("search/run.py", *options.split(), *where.split())
    assert ended.status == 0, ended.stderr
    return folder / "own"


def test_the_training_gets_what_the_record_says(study: Path) -> None:
    record = StudyRecord.open(study)
    for trial in record.trials:
        assert list(trial.hyperparameters) == list(NAMES)
        for name, value in trial.hyperparameters.items():
            assert [metrics.values[f"saw_{name}"] for metrics in trial.epochs] == [value, value]
    assert [trial.seed for trial in record.trials] == [0, 1, 2]  # the generators' own


def test_every_column_of_the_tables_is_there_once_with_its_own_value(study: Path) -> None:
    trials, epochs = pd.read_csv(study / "trials.csv"), pd.read_csv(study / "epochs.csv")
    for table, file in ((trials, "trials.csv"), (epochs, "epochs.csv")):
        head = (study / file).read_text().splitlines()[0].split(",")
        assert len(set(head)) == len(head) == len(table.columns)
    for place, name in enumerate(NAMES, start=1):
        column = name if name in ("number", "checkpoint", "epochs_recorded", "env") else f"hyperparameter_{name}"
        assert (trials[column] == trials[f"saw_{name}"]).all()
        assert trials[column].between(100 * place, 100 * place + 9).all()
    assert (trials["loss"] == trials["number"]).all()
    assert sorted(trials["seed"]) == sorted(trials["trial_number"]) == [0, 1, 2]
    assert list(trials["status"]) == ["completed"] * 3
    assert trials["error"].isna().all()
    expected = {
        "metric_seconds": 7,
        "metric_epoch": 8,
        "timing": 9,
        "done": 10,
        "metric_pid": 12,
        "metric_error": 13,
        "val/f1": 19,
    }
    assert {name: set(epochs[name]) for name in expected} == {name: {value} for name, value in expected.items()}
    assert list(epochs["epoch"]) == [1, 2] * 3


def test_metrics_that_begin_late_are_kept(study: Path) -> None:
    epochs = pd.read_csv(study / "epochs.csv")
    for name, value in (("late", 3.0), ("rising", 4.0)):
        assert epochs.loc[epochs["epoch"] == 2, name].tolist() == [value] * 3
        assert epochs.loc[epochs["epoch"] == 1, name].isna().all()


def test_loggers_get_the_names_of_the_tables(study: Path) -> None:
    record = StudyRecord.open(study)
    trial = record.trials[1]
    hyperparameters, metrics = hyperparameters_and_seed(record, trial), metric_values(record, trial.epochs[0])
    assert hyperparameters["seed"] == 1
    assert hyperparameters["hyperparameter_seed"] == trial.hyperparameters["seed"]
    assert (metrics["seconds"], metrics["metric_seconds"]) == (trial.epochs[0].seconds, 7.0)
    assert "rising" not in metrics
    assert best_name(record) == "best_best_loss"
    assert {*hyperparameters, *metrics} <= {*trial_table(record).columns}


def test_record_from_before_the_names_were_kept_apart_is_read(study: Path, tmp_path: Path) -> None:
    new = StudyRecord.open(study)
    with closing(sqlite3.connect(study / "study.db")) as source, closing(sqlite3.connect(tmp_path / "study.db")) as old:
        source.backup(old)
        query = "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes WHERE key LIKE 'epoch %'"
        for row, text in old.execute(query).fetchall():
            measured = json.loads(text)
            flat = {"loss": measured.pop("values")["loss"], **measured}
            old.execute(
                "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
                (json.dumps(flat), row),
            )
        old.commit()
    read = StudyRecord.open(tmp_path)
    assert [[asdict(metrics)["values"] for metrics in trial.epochs] for trial in read.trials] == [
        [{"loss": metrics.values["loss"]} for metrics in trial.epochs] for trial in new.trials
    ]
    assert read.trials[0].timings == new.trials[0].timings


def test_hyperparameters_of_a_network_reach_it_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "space.toml").write_text(
        '[checkpoint]\nchoices = ["deep"]\n[number]\nvalue = 5\n[val_accuracy]\nlow = 2.0\nhigh = 3.0\n'
    )
    options = ["--dataset", "digits", "--num-samples", "2", "--epochs", "1", "--no-baseline", "--name", "own"]
    where = ["--results-dir", str(tmp_path), "--network", f"{tmp_path}/net.py:build"]
    ended = run_command("search/run.py", *options, "--space", str(tmp_path / "space.toml"), *where)
    assert ended.status == 0, ended.stderr
    model = read_metadata(tmp_path / "own" / "model")
    assert (model.network_hyperparameters["checkpoint"], model.network_hyperparameters["number"]) == ("deep", 5)
    weights = load_file(tmp_path / "own" / "model" / "model.safetensors")
    assert weights["1.weight"].shape == (5, 64)
    trials = pd.read_csv(tmp_path / "own" / "trials.csv")
    assert trials["hyperparameter_val_accuracy"].between(2, 3).all()
    assert trials["val_accuracy"].between(0, 1).all()
    assert list(trials["checkpoint"]) == ["deep"] * 2


@pytest.mark.parametrize("name", ["threads", "image_size", "data_dir", "learning_rate", "no_shuffle"])
def test_network_hyperparameter_with_the_name_of_an_option_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK.replace("status", name))
    with pytest.raises(ValueError, match=f"{name} is already an option of every training"):
        config_type(f"{tmp_path}/net.py:build")


@pytest.mark.parametrize("name", ["", "=1+1", "@sum", "a=b", "line\nbreak", "esc\x1b[31m", "x" * 101, " space"])
def test_name_that_no_table_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a hyperparameter's name must be 1 to 100 printable characters") as refusal:
        parse({name: {"low": 0.0, "high": 1.0}})
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["lr (log)", "model.depth", "layer/0", "β_1", "top-k"])
def test_other_names_are_free(name: str) -> None:
    assert list(parse({name: {"low": 0.0, "high": 1.0}})) == [name]


def test_columns_stay_distinct_whatever_the_names() -> None:
    names = ["seed", "metric_seed", "loss", "metric_metric_seed"]
    columns = distinct_columns("metric", names, {"seed", "loss"})
    assert columns["metric_seed"] == "metric_seed"
    assert len({*columns.values(), "seed", "loss"}) == 6
