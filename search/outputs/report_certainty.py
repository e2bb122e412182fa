"""Says in a report which trials cannot be distinguished from the best one, and what they have in common."""

from bisect import bisect_left
from collections import Counter, defaultdict

from optuna.distributions import CategoricalDistribution

from search.record.ranking import best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import counted, format_metric, format_value
from training.metrics import may_be_chance


def certainty(record: StudyRecord) -> list[str]:
    """Describe which trials the validation images cannot distinguish from the best one."""
    best = best_trial(record.trials)
    if best is None or record.metric != "val_accuracy" or record.metadata.dataset is None:
        return []
    images = record.metadata.images.validation_images
    _, *others = sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
    # the further from the best, the less it may be chance
    significant = bisect_left(
        others, True, key=lambda trial: not may_be_chance(best.best_value, trial.best_value, images)
    )
    rivals = others[:significant]
    if not rivals:
        alone = (
            f"The best trial is significantly better than all others: with {images:,} validation images, chance alone "
            "does not explain the differences."
        )
        return [alone, *_best_of_each_choice(record)]
    rivals.insert(0, best)
    numbers = ", ".join(str(trial.number) for trial in rivals[:8]) + (" …" if len(rivals) > 8 else "")
    sentences = [
        f"{len(rivals)} trials ({numbers}; {record.metric} {rivals[-1].best_value:.4f} to {best.best_value:.4f}) "
        f"are not significantly different: with {images:,} validation images, chance alone can explain the differences."
    ]
    return sentences + _choices_among(record, rivals) + _best_of_each_choice(record)


def _choices_among(record: StudyRecord, rivals: list[TrialRecord]) -> list[str]:
    """Describe the hyperparameters of the trials that may be the best."""
    sentences = []
    for name, distribution in record.space.items():
        values = [trial.hyperparameters[name] for trial in rivals if name in trial.hyperparameters]
        if not values:
            continue
        if isinstance(distribution, CategoricalDistribution):
            tried = Counter(trial.hyperparameters[name] for trial in record.trials if name in trial.hyperparameters)
            counts = Counter(values)
            listed = ", ".join(f"{value} ({number})" for value, number in counts.most_common())
            missing = [value for value in tried if value not in counts]
            others = counted(sum(tried[value] for value in missing), "trial")
            none = f"; none has {' or '.join(map(str, missing))} ({others} of the study)" if missing else ""
            sentences.append(f"These trials have {name} {listed}{none}.")
        else:
            low, high = min(values, key=float), max(values, key=float)
            limits = format_value(low) if low == high else f"from {format_value(low)} to {format_value(high)}"
            sentences.append(f"These trials have {name} {limits}.")
    return sentences


def _best_of_each_choice(record: StudyRecord) -> list[str]:
    """Describe the best value of each category, and how many of its trials ran in full."""
    measured = sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
    sentences = []
    for name, distribution in record.space.items():
        groups: dict[object, list[TrialRecord]] = defaultdict(list)
        for trial in measured:
            if name in trial.hyperparameters and isinstance(distribution, CategoricalDistribution):
                groups[trial.hyperparameters[name]].append(trial)
        bests = []
        for choice, trials in groups.items():
            full = sum(trial.status == "completed" for trial in trials)
            best = format_metric(trials[0].best_value)
            bests.append(f"{choice} {best} ({full} of {counted(len(trials), 'trial')} ran in full)")
        if bests:
            sentences.append(f"Best {record.metric} by {name}: {', '.join(bests)}.")
    return sentences
