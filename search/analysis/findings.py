"""What a study's record says beyond its numbers, for the summary and the report."""

from dataclasses import dataclass

from search.analysis.equal_budget import EqualBudget, equal_budget
from search.analysis.importance import Importance, importances
from search.analysis.recommendations import Recommendation, recommend
from search.record.study_record import StudyRecord


@dataclass(frozen=True)
class Findings:
    """Importance and recommendations, and the trials on which they rest; empty where there are too few."""

    compared: EqualBudget | None
    importances: list[Importance]
    recommendations: list[Recommendation]


def analyse(record: StudyRecord) -> Findings:
    """Compute the findings of a study."""
    compared = equal_budget(record)
    importance = importances(compared, record.space) if compared else []
    return Findings(compared, importance, recommend(record, record.space, compared, importance))
