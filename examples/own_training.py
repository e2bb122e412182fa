"""Search any training: gradient boosting on the diabetes data of scikit-learn, for the lowest error.

python search/run.py --train-function examples/own_training.py:train --space examples/own_training.toml \
        --metric rmse --mode min --epochs 20 --num-samples 20
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import train_test_split


@dataclass(frozen=True)
class Config:
    """The hyperparameters of the training; they can be searched or fixed, and the study sets the seed."""

    learning_rate: float = 0.1
    max_depth: int = 3
    subsample: float = 1.0
    seed: int = 0


def train(config: Config) -> Iterator[dict[str, float]]:
    """Add five trees in each epoch; yield the errors on held-out patients."""
    inputs, targets = load_diabetes(return_X_y=True)
    train_inputs, val_inputs, train_targets, val_targets = train_test_split(inputs, targets, random_state=0)
    model = GradientBoostingRegressor(
        learning_rate=config.learning_rate,
        max_depth=config.max_depth,
        subsample=config.subsample,
        random_state=config.seed,
        warm_start=True,
        n_estimators=0,
    )
    while True:
        model.n_estimators += 5
        model.fit(train_inputs, train_targets)
        predicted = model.predict(val_inputs)
        yield {
            "rmse": root_mean_squared_error(val_targets, predicted),
            "mean_absolute_error": mean_absolute_error(val_targets, predicted),
        }
