import dataclasses

import pytest

from training.config import TrialConfig


def test_defaults_are_the_tutorials() -> None:
    config = TrialConfig()
    assert (config.learning_rate, config.batch_size, config.optimizer, config.epochs) == (1e-3, 64, "sgd", 10)
    assert (config.momentum, config.weight_decay) == (0, 0)
    assert (config.lr_schedule, config.label_smoothing, config.shift, config.flip) == ("none", 0, 0, False)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("learning_rate", 0.0, "learning_rate must be > 0, got 0.0"),
        ("learning_rate", float("nan"), "learning_rate must be > 0, got nan"),
        ("learning_rate", float("inf"), "learning_rate must be > 0, got inf"),
        ("batch_size", 0, "batch_size must be >= 1, got 0"),
        ("optimizer", "lion", "optimizer must be one of sgd, adam, adamw, rmsprop, got lion"),
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
        ("weight_decay", -1.0, "weight_decay must be >= 0, got -1.0"),
        ("lr_schedule", "step", "lr_schedule must be one of none, cosine, onecycle, got step"),
        ("label_smoothing", 1.0, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ("label_smoothing", float("nan"), r"label_smoothing must be in \[0, 1\), got nan"),
        ("shift", -1, "shift must be >= 0, got -1"),
        ("epochs", 0, "epochs must be >= 1, got 0"),
        ("network", "resnet", "network must be one of mlp, cnn or an import path like path/to/file.py:build"),
        ("seed", -1, "seed must be between 0 and 4294967295, got -1"),
    ],
)
def test_bad_value_is_refused_with_the_rule(field: str, value: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        dataclasses.replace(TrialConfig(), **{field: value})  # type: ignore[arg-type]


def test_momentum_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum is for sgd and rmsprop, got momentum 0.9 with adam"):
        TrialConfig(optimizer="adam", momentum=0.9)
