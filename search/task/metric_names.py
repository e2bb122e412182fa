"""Names of metrics: which are allowed, and whether the highest or the lowest value is the best."""

import re
from typing import Literal

Mode = Literal["max", "min"]

KNOWN_METRICS: dict[Mode, set[str]] = {
    "min": {"loss", "error", "err", "mse", "rmse", "mae", "mape", "perplexity", "ppl", "nll", "wer", "cer"},
    "max": {"accuracy", "acc", "f1", "auc", "auroc", "score", "r2", "precision", "recall", "iou", "dice", "bleu"},
}
"""Words in the name of a metric that say whether its highest or its lowest value is the best."""


def check_metric_name(name: str) -> None:
    """Raise a ValueError if the name of a metric has other characters than letters, digits and some signs."""
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_./:@ -]{0,58}[A-Za-z0-9_])?", name):
        raise ValueError(
            "a metric's name must consist of letters, digits, spaces and _ . / : @ - and begin with a letter, "
            f"got {name!r:.80}"
        )


def words_of(metric: str) -> set[str]:
    """The words in the name of a metric, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", metric)}


def derived_mode(metric: str) -> Mode | None:
    """Whether the highest or the lowest value of a metric is the best, if its name says so."""
    words = words_of(metric)
    modes: list[Mode] = [mode for mode, known in KNOWN_METRICS.items() if words & known]
    return modes[0] if len(modes) == 1 else None
