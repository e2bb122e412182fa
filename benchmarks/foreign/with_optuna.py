"""Studies of Optuna in a file, by any version from 2 to 5: python with_optuna.py KIND FILE [TRIALS]."""

import math
import random
import sys
from collections.abc import Callable
from typing import Any

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
EPOCHS = 8


def curve(trial: Any, quality: float) -> float:
    """Report a learning curve that ends at a quality, and end early where the pruner says so."""
    value = 0.0
    for epoch in range(EPOCHS):
        value = quality * (1 - math.exp(-(epoch + 1) / 3)) + random.Random(trial.number * 100 + epoch).gauss(0, 0.003)
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def pruned(trial: Any) -> float:
    """An accuracy with a curve; weak trials are pruned."""
    rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 5)
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam", None])
    dropout = trial.suggest_float("dropout", 0.0, 0.6, step=0.1)
    quality = 0.95 - 0.03 * (math.log10(rate) + 2) ** 2 - 0.01 * (layers - 3) ** 2 - 0.1 * dropout
    return curve(trial, quality - (0.05 if optimizer == "sgd" else 0.0))


def conditional(trial: Any) -> float:
    """A loss without a curve; hyperparameters depend on a choice; some trials fail or have no finite value."""
    kind = trial.suggest_categorical("model", ["svm", "forest"])
    if kind == "svm":
        c = trial.suggest_float("svm/C", 1e-3, 1e3, log=True)
        loss = 0.2 + 0.05 * math.log10(c) ** 2
    else:
        depth = trial.suggest_int("forest/depth", 2, 64, log=True)
        loss = 0.15 + 0.03 * abs(math.log2(depth) - 4)
    if trial.number % 11 == 3:
        raise RuntimeError("the model could not be trained")
    if trial.number % 13 == 5:
        return math.nan
    return math.inf if trial.number % 17 == 6 else loss + random.Random(trial.number).gauss(0, 0.01)


def two_objectives(trial: Any) -> tuple[float, float]:
    """Two objectives."""
    width = trial.suggest_int("width", 8, 512)
    rate = trial.suggest_float("rate", 0.0, 1.0)
    return abs(rate - 0.3) + 1 / width, width * 1000.0


def other_value(trial: Any) -> float:
    """The value of a trial is another quantity than its values per step, whose numbers have gaps."""
    x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
    for step in range(100, 600, 100):
        trial.report((x * x + y * y) / step, step)
    return float(x * x + y * y)


def run(objective: Callable[[Any], Any], file: str, name: str, **options: Any) -> Any:
    """Run a study; its errors are those of its trials."""
    study = optuna.create_study(
        storage=f"sqlite:///{file}", study_name=name, sampler=optuna.samplers.TPESampler(seed=1), **options
    )
    study.optimize(objective, n_trials=TRIALS, catch=(RuntimeError,))
    return study


def main(kind: str, file: str) -> None:
    """Run the study of a kind."""
    if kind == "pruned":
        run(pruned, file, "pruned", direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=5))
    elif kind == "conditional":
        study = run(conditional, file, "conditional models", direction="minimize")
        study.enqueue_trial({"model": "svm"})
        study.ask()  # takes the waiting trial, and never ends it
        study.enqueue_trial({"model": "forest"})
    elif kind == "two-objectives":
        study = run(two_objectives, file, "two", directions=["minimize", "minimize"])
        if hasattr(study, "set_metric_names"):
            study.set_metric_names(["loss", "parameters"])
    elif kind == "several-studies":
        for name in ("first", "second"):
            run(pruned, file, name, direction="maximize")
    elif kind == "other-value":
        run(other_value, file, "other value")


if __name__ == "__main__":
    main(*sys.argv[1:3])
