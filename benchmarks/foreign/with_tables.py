"""Tables of studies, each as a program exports it: python with_tables.py KIND FILE [STORAGE]."""

import math
import random
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd

RANDOM = random.Random(2)


def of_optuna(file: str, storage: str) -> None:
    """`trials_dataframe` of the study in a storage of Optuna."""
    import optuna

    (name,) = (summary.study_name for summary in optuna.get_all_study_summaries(f"sqlite:///{storage}"))
    optuna.load_study(study_name=name, storage=f"sqlite:///{storage}").trials_dataframe().to_csv(file, index=False)


def of_optuna_steps(file: str, storage: str) -> None:
    """A row for each value per step of the study in a storage of Optuna."""
    import optuna

    (name,) = (summary.study_name for summary in optuna.get_all_study_summaries(f"sqlite:///{storage}"))
    rows = [
        {"trial": trial.number, "step": step, "accuracy": value, "state": trial.state.name}
        | {f"param:{name}": value for name, value in trial.params.items()}
        for trial in optuna.load_study(study_name=name, storage=f"sqlite:///{storage}").trials
        for step, value in trial.intermediate_values.items()
    ]
    pd.DataFrame(rows).to_csv(file, index=False)


def of_sklearn(file: str) -> None:
    """`cv_results_` of a random search of scikit-learn, which has no state and no time of a whole trial."""
    from scipy.stats import loguniform
    from sklearn.datasets import load_iris
    from sklearn.model_selection import RandomizedSearchCV
    from sklearn.svm import SVC

    space = {"C": loguniform(1e-2, 1e3), "kernel": ["rbf", "linear", "poly"], "gamma": loguniform(1e-4, 1e1)}
    search = RandomizedSearchCV(SVC(), space, n_iter=30, random_state=0)
    search.fit(*load_iris(return_X_y=True))
    pd.DataFrame(search.cv_results_).to_csv(file, index=False)


def of_mlflow(file: str) -> None:
    """`search_runs` of MLflow."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{file}.db")
    for number in range(15):
        with mlflow.start_run(run_name=f"run {number}"):
            values = one()
            mlflow.log_params(values)
            mlflow.log_metric("val_loss", loss_of(values))
    mlflow.search_runs().to_csv(file, index=False)


def of_wandb(file: str) -> None:
    """What the web page of W&B exports for a sweep, in its columns; without its server nothing else can make it."""
    rows = []
    for number in range(20):
        values, state = one(), "crashed" if number % 9 == 4 else "finished"
        rows.append(
            {
                "Name": f"{values['optimizer']}-sweep-{number}",
                "State": state,
                "Notes": "-",
                "User": "me",
                "Tags": "",
            }
            | {"Created": "2026-01-01T00:00:00.000Z", "Runtime": 60 + number, "Sweep": "a1b2c3"}
            | values
            | {"epoch": 10, "val_loss": loss_of(values) if state == "finished" else None}
        )
    pd.DataFrame(rows).to_csv(file, index=False)


def of_wandb_api(file: str) -> None:
    """What the script in W&B's documentation exports: dictionaries of Python in the cells."""
    values = [one() for _ in range(20)]
    summaries = [{"val_loss": loss_of(one), "_wandb": {"runtime": 3}, "_step": 9} for one in values]
    names = [f"glowing-sun-{number}" for number in range(20)]
    pd.DataFrame({"summary": summaries, "config": values, "name": names}).to_csv(file)


def one() -> dict[str, Any]:
    """The hyperparameters of a trial."""
    rate, batch_size = 10 ** RANDOM.uniform(-5, -1), RANDOM.choice([32, 64, 128])
    return {"learning_rate": rate, "batch_size": batch_size, "optimizer": RANDOM.choice(["sgd", "adam"])}


def loss_of(values: dict[str, Any]) -> float:
    """What a trial with these hyperparameters reaches."""
    return 0.3 + 0.1 * (math.log10(values["learning_rate"]) + 3) ** 2 + RANDOM.gauss(0, 0.01)


KINDS: dict[str, Callable[..., None]] = {
    "optuna": of_optuna,
    "optuna-steps": of_optuna_steps,
    "sklearn": of_sklearn,
    "mlflow": of_mlflow,
    "wandb": of_wandb,
    "wandb-api": of_wandb_api,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
