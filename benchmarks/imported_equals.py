"""How often a comparison of two imported studies finds a difference where there is none: 100 pairs of equal searches.

Both studies of a pair search the same noisy function with Optuna's TPE, from other seeds, and are imported from files
of Optuna: python benchmarks/imported_equals.py [PAIRS] [TRIALS] [NOISE].
"""

import math
import random
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from search.analysis.comparison import compare
from search.analysis.significance import Significance
from search.importing.reading import SourceOptions, read_source
from search.importing.write import ImportChoices, write
from search.record.study_record import StudyRecord


def search(file: Path, seed: int, trials: int, deviation: float) -> None:
    """Search the function, whose values have noise, and write the study into a file."""
    noise = random.Random(seed)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)
        width = trial.suggest_int("width", 8, 512, log=True)
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
        loss = 0.3 + 0.03 * (math.log10(rate) + 2) ** 2 + 0.01 * abs(math.log2(width / 128))
        return loss + (0.02 if optimizer == "sgd" else 0.0) + noise.gauss(0, deviation)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=trials)
    optuna.create_study(storage=f"sqlite:///{file}", study_name=file.stem).add_trials(study.trials)


def imported(file: Path) -> StudyRecord:
    """The record of the imported study."""
    study, source = read_source(str(file), SourceOptions(metric="val_loss"))
    return StudyRecord.open(write(study, source, ImportChoices(results_dir=file.parent / "results")))


def outcome(first: Path, second: Path) -> str:
    """What the comparison of two studies says."""
    (significance,) = compare([imported(first), imported(second)]).significances
    assert isinstance(significance, Significance)
    if significance.is_clear:
        return "a difference"
    return "too few data to tell" if "too few data" in significance.sentence else "no significant difference"


def main(pairs: int, trials: int, deviation: float) -> None:
    """Compare pairs of studies, and count what the comparisons say."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    outcomes: Counter[str] = Counter()
    for pair in range(pairs):
        with TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}.db" for name in ("one", "other")]
            for place, file in enumerate(files):
                search(file, 2 * pair + place, trials, deviation)
            outcomes[outcome(*files)] += 1
    print(f"{pairs} pairs of equal studies with {trials} trials each, noise {deviation}: {dict(outcomes)}")


if __name__ == "__main__":
    given = [*sys.argv[1:], *("100", "30", "0.01")[len(sys.argv) - 1 :]]
    main(int(given[0]), int(given[1]), float(given[2]))
