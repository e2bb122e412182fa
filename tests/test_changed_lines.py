"""What people have is searched with at most three changed lines, of which the guide speaks in its table."""

import difflib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from serial_ray import run_command
from test_from_python import function

from search.api import run_search

SCRIPT = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()
weight = 0.0
for epoch in range(3):
    loss = (weight - 1) ** 2
    weight -= args.lr * 2 * (weight - 1)
    print(f"epoch {epoch}: val loss {loss:.4f}")
"""
LOOP = """
import torch

def train(lr=0.1):
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr)
    for epoch in range(3):
        loss = (weight - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch}: val loss {loss.item():.4f}")
"""
OWNED = """
def fit(lr, epochs, callback):
    for epoch in range(epochs):
        callback(epoch, (1 - lr) ** epoch)

def train(lr=0.1):
    def after_epoch(epoch, loss):
        print(epoch, loss)
    fit(lr, 3, after_epoch)
"""
RAY_TUNE = """
from ray import tune

def train(config):
    for epoch in range(3):
        tune.report({"val_loss": (1 - config["lr"]) ** epoch})

if __name__ == "__main__":
    tune.Tuner(train, param_space={"lr": tune.loguniform(1e-3, 1e-1)}).fit()
"""
OPTUNA = """
import optuna

def objective(trial):
    lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    for epoch in range(3):
        trial.report((1 - lr) ** epoch, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return (1 - lr) ** 3

if __name__ == "__main__":
    optuna.create_study().optimize(objective, n_trials=20)
"""
PRINTED = 'print(f"epoch {epoch}: val loss {loss.item():.4f}")'
SPACE = "[lr]\nlow = 0.001\nhigh = 0.1\nlog = true\n"


@dataclass(frozen=True)
class Case:
    """A file that somebody has, and what makes it one that can be searched."""

    before: str
    replaced: dict[str, str]
    options: str
    epochs: int = 3

    @property
    def after(self) -> str:
        text = self.before
        for old, new in self.replaced.items():
            assert old in text
            text = text.replace(old, new, 1)
        return text


COMMAND, FUNCTION = '--command "python train.py --lr {lr}"', "--train-function train.py:train"
CASES = {
    "script, as it is": Case(SCRIPT, {}, rf'{COMMAND} --parse "val loss (?P<val_loss>[\d.]+)"'),
    "script that prints": Case(
        SCRIPT,
        {
            "import argparse\n": "import argparse\nimport json\n",
            'print(f"epoch {epoch}: val loss {loss:.4f}")': 'print(json.dumps({"val_loss": loss}))',
        },
        COMMAND,
    ),
    "loop": Case(LOOP, {PRINTED: 'yield {"val_loss": loss}'}, FUNCTION),
    "callback": Case(
        OWNED,
        {"def train(lr=0.1)": "def train(report, lr=0.1)", "print(epoch, loss)": 'report({"val_loss": loss})'},
        FUNCTION,
    ),
    "Ray Tune": Case(RAY_TUNE, {}, FUNCTION),
    "Optuna": Case(OPTUNA, {}, "--train-function train.py:objective", epochs=4),
}


def changed_lines(case: Case) -> int:
    lines = difflib.ndiff(case.before.splitlines(), case.after.splitlines())
    return sum(line.startswith("+ ") for line in lines)


@pytest.mark.parametrize("name", CASES)
def test_what_people_have_is_searched_with_three_changed_lines(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert changed_lines(case) <= 3
    (tmp_path / "train.py").write_text(case.after)
    (tmp_path / "space.toml").write_text(SPACE)
    space = [] if name == "Optuna" else ["--space", "space.toml"]
    words = [*shlex.split(case.options), *space, "--metric", "val_loss", "--num-samples", "2", "--name", "own"]
    run = run_command("search/run.py", *words, "--scheduler=none", f"--results-dir={tmp_path / 'out'}", cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    trials = pd.read_csv(tmp_path / "out" / "own" / "trials.csv")
    assert trials["status"].tolist() == ["completed"] * 2
    assert trials["epochs"].tolist() == [case.epochs] * 2, name
    assert trials["lr"].between(0.001, 0.1).all()


@pytest.mark.parametrize("name", ["loop", "callback"])
def test_function_of_a_notebook_needs_the_same_lines(name: str, tmp_path: Path, without_ray: None) -> None:
    space: dict[str, Any] = {"lr": {"low": 0.001, "high": 0.1, "log": True}}
    train = function(CASES[name].after)
    study = run_search(train, space, metric="val_loss", num_samples=2, scheduler="none", results_dir=tmp_path)
    assert study.trials["status"].tolist() == ["completed"] * 2
