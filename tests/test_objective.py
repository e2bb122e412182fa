"""Optuna objectives: their space is found by asking them, and they run unchanged."""

from pathlib import Path

import pandas as pd
import pytest
from serial_ray import CompletedRun, run_command

from search.space.objective_space import ask_space
from search.space.search_space import describe

PROGRAM = """
import time
import optuna

def simple(trial):
    x = trial.suggest_float("x", -10, 10)
    return (x - 2) ** 2

def training(trial: optuna.Trial):
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    if optimizer == "sgd":
        momentum = trial.suggest_float("momentum", 0.0, 0.9, step=0.3)
    layers = trial.suggest_int("layers", 1, 3)
    widths = [trial.suggest_int(f"width_{layer}", 8, 64, log=True) for layer in range(layers)]
    trial.set_user_attr("parameters", sum(widths))
    for step in range(0, 500, 100):
        loss = abs(lr - 0.1) + 1 / (step + 100)
        trial.report(loss, step)
        if trial.should_prune():
            with open("pruned.txt", "a") as notes:
                notes.write(f"{trial.number} {step}\\n")
            raise optuna.TrialPruned
    return loss

def ignores_pruning(trial):
    lr = trial.suggest_float("lr", 0.1, 1.0)
    for step in range(9):
        trial.report(lr * (step + 1), step)
    return lr

def gives_up(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    trial.report(x, 0)
    raise optuna.TrialPruned

def slow(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    time.sleep(3600)

def none(trial):
    return 1.0

def raising(trial):
    trial.suggest_float("x", 0.0, 1.0)
    return open("missing.csv")

def tuples(trial):
    return trial.suggest_categorical("sizes", [(1, 2), (3, 4)])[0]

def ranges(trial):
    top = 1.0 if trial.suggest_categorical("kind", ["a", "b"]) == "a" else 2.0
    return trial.suggest_float("x", 0.0, top)

def both(trial):
    one, other = (trial.suggest_categorical(name, [False, True]) for name in ("one", "other"))
    return trial.suggest_float("x", 0.0, 1.0) if one or other else 1.0

def grows(trial):
    count = trial.suggest_int("count", 1, 20)
    return trial.suggest_int("used", 0, count)

def has_none(trial, scale=2.0):
    depth = trial.suggest_categorical("depth", [None, 5])
    cost = trial.suggest_float("cost", 1.0, 2.0) if depth is None else depth
    return scale * cost

class Objective:
    def __call__(self, trial):
        return trial.suggest_float("x", 0.0, 1.0)

from_object = Objective()

def load():
    return [1.0, 2.0]

def with_all(trial, checkpoint, data, *, seed, trial_folder):
    low, high = (0.0, 1.0) if trial.study.direction == optuna.study.StudyDirection.MINIMIZE else (5.0, 6.0)
    x = trial.suggest_float("x", low, high)
    trial.study.set_user_attr("x", x)
    open(f"{trial_folder}/note.txt", "w").write(f"{trial.study.study_name} {trial.study.user_attrs}")
    start = checkpoint.load()
    for epoch in range(start, 2):
        checkpoint.save(epoch + 1)
        trial.report(x * data[epoch] + 0 * seed, epoch)
    return x

def asks_for_the_best(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    if trial.number > 0 and x > trial.study.best_value:
        raise optuna.TrialPruned
    return x

def unpacks(trial, data, report):
    x = trial.suggest_float("x", 0.0, 1.0)
    first, second = data
    report({"loss": x * first + second})

def needs_more(trial, model):
    return trial.suggest_float("x", 0.0, 1.0)

def infeasible(trial):
    if trial.suggest_float("x", 0.0, 1.0) >= 0.0:
        raise optuna.TrialPruned

def several(trial):
    x = trial.suggest_float("x", 0.0, 1.0)
    return x, -x
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *options: str) -> CompletedRun:
    function = ["--train-function", f"program.py:{name}", "--name", name, "--results-dir", "out"]
    return run_command("search/run.py", *function, "--metric", "loss", "--num-samples", "6", *options)


def trials(name: str) -> pd.DataFrame:
    return pd.read_csv(f"out/{name}/trials.csv").set_index("trial_number").sort_index()


def test_space_of_an_objective_is_found_with_its_conditions(place: Path) -> None:
    width = {"low": 8, "high": 64, "log": True}
    assert describe(ask_space("program.py:training")) == {
        "optimizer": {"choices": ["sgd", "adam"]},
        "lr": {"low": 1e-4, "high": 1.0, "log": True},
        "momentum": {"low": 0.0, "high": 0.9, "log": False, "step": 0.3, "when": {"optimizer": "sgd"}},
        "layers": {"low": 1, "high": 3, "log": False},
        "width_0": width,
        "width_1": width | {"when": {"layers": [2, 3]}},
        "width_2": width | {"when": {"layers": 3}},
    }
    assert not (place / "pruned.txt").exists()


def test_objective_that_trains_at_once_is_interrupted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.space.objective_space.SECONDS", 0.05)
    assert [*ask_space("program.py:slow")] == ["x"]


def test_objectives_run_unchanged(place: Path) -> None:
    ended = run("simple")
    assert ended.status == 0, ended.stderr
    table = trials("simple")
    assert ((table["x"] - 2) ** 2 == table["loss"]).all()
    assert set(table["status"]) == {"completed"}  # nothing was left to stop
    ended = run("training")
    assert ended.status == 0, ended.stderr
    table = trials("training")
    assert {*table["status"]} == {"completed", "stopped_early"}
    stopped = table[table["status"] == "stopped_early"]
    expected = [f"{number} {100 * (epochs - 1)}" for number, epochs in stopped["epochs"].items()]
    assert sorted(Path("pruned.txt").read_text().splitlines()) == expected
    assert set(table["epochs"][table["status"] == "completed"]) == {5}
    assert table["momentum"].notna().tolist() == (table["optimizer"] == "sgd").tolist()


def test_choice_of_none_arrives_as_none(place: Path) -> None:
    ended = run("has_none", "--sampler", "random")
    assert ended.status == 0, ended.stderr
    table = trials("has_none")
    assert table["depth"].isna().nunique() == 2
    assert (table["loss"] == 2 * table["cost"].fillna(5.0)).all()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_objective_gets_what_it_needs_and_knows_its_study(place: Path, mode: str) -> None:
    ended = run("with_all", "--mode", mode, "--scheduler", "none")
    assert ended.status == 0, ended.stderr
    table = trials("with_all")
    assert ((table["x"] < 2) == (mode == "min")).all()
    assert (table["best_epoch"] == (1 if mode == "min" else 2)).all()
    expected = f"with_all {{'x': {table['x'][2]}}}"
    assert Path("out/with_all/trials/0002/note.txt").read_text() == expected


def test_space_is_known_when_an_objective_begins_to_use_its_data(place: Path) -> None:
    ended = run("unpacks")
    assert ended.status == 0, ended.stderr
    assert (trials("unpacks")["loss"] == trials("unpacks")["x"] + 2).all()


def test_objective_that_asks_for_other_trials_fails_with_a_sentence(place: Path) -> None:
    run("asks_for_the_best")
    errors = trials("asks_for_the_best")["error"]
    assert errors.isna()[0]
    sentence = (
        "AttributeError: an objective cannot use trial.study.best_value, because its trial does not know the others"
    )
    assert {error.partition(";")[0] for error in errors[1:]} == {sentence}


def test_object_that_can_be_called_is_an_objective(place: Path) -> None:
    ended = run("from_object")
    assert ended.status == 0, ended.stderr
    assert (trials("from_object")["loss"] == trials("from_object")["x"]).all()


def test_objective_and_space_that_do_not_fit_are_told(place: Path) -> None:
    Path("space.toml").write_text("[y]\nlow = 0.0\nhigh = 1.0\n")
    run("simple", "--space", "space.toml")
    sentence = "ValueError: the objective suggests x, which the search space does not have in this trial"
    assert set(trials("simple")["error"]) == {sentence}
    run("infeasible")
    sentence = "ValueError: the objective raised TrialPruned before its first report"
    assert set(trials("infeasible")["error"]) == {sentence}


@pytest.mark.parametrize(("name", "epochs"), [("ignores_pruning", 4), ("gives_up", 1)])
def test_report_ends_an_objective_that_does_not_ask(place: Path, name: str, epochs: int) -> None:
    ended = run(name, "--epochs", "4", "--scheduler", "none")
    assert ended.status == 0, ended.stderr
    assert set(trials(name)["epochs"]) == {epochs}
    assert set(trials(name)["status"]) == {"completed"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", "it suggests none; give the search space as a file with --space"),
        ("raising", "FileNotFoundError: [Errno 2] No such file or directory: 'missing.csv'"),
        ("tuples", "sizes"),
        ("ranges", "the range of x depends on other values; give the search space as a file with --space"),
        ("grows", "the range of used depends on other values; give the search space as a file with --space"),
        ("needs_more", "missing 1 required positional argument: 'model'"),
        ("both", "x depends on several of the other values; give the search space as a file with --space"),
    ],
)
def test_objective_that_cannot_be_asked_is_refused_in_one_sentence(place: Path, name: str, sentence: str) -> None:
    ended = run(name)
    assert ended.status == 2
    beginning = f"error: train_function {place}/program.py:{name} cannot be asked for its hyperparameters: "
    assert ended.stderr.startswith(beginning)
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (place / "out").exists()


def test_function_that_is_no_objective_needs_a_space(place: Path) -> None:
    (place / "program.py").write_text("def train(x):\n    return x\n")
    ended = run("train")
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: train_function needs space, a file with the search space")


def test_space_of_an_objective_may_be_given(place: Path) -> None:
    space = "[x]\nlow = 0.0\nhigh = 0.5\n[one]\nvalue = true\n[other]\nchoices = [true, false]\n"
    (place / "space.toml").write_text(space)
    ended = run("both", "--space", "space.toml")
    assert ended.status == 0, ended.stderr
    assert (trials("both")["loss"] == trials("both")["x"]).all()


def test_objective_with_several_values_fails_with_a_sentence(place: Path) -> None:
    ended = run("several")
    assert ended.status == 1
    assert set(trials("several")["error"]) == {
        "ValueError: the training function must yield metrics, or return one number or one dictionary of numbers, "
        "got tuple"
    }
