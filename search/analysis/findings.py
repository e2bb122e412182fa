"""The findings of a study for its summary and report: importances and recommendations."""

from dataclasses import dataclass

from search.analysis.equal_budget import EqualBudget, equal_budget
from search.analysis.importance import Importance, importances
from search.analysis.recommendations import Recommendation, recommend
from search.record.study_record import StudyRecord


@dataclass(frozen=True)
class Findings:
    """Importances and recommendations, with the compared trials; empty where there are too few trials."""

    compared: EqualBudget | None
    importances: list[Importance]
    recommendations: list[Recommendation]


def analyse(record: StudyRecord) -> Findings:
    """Compute the findings of a study."""
    compared = equal_budget(record)
    evaluated = importances(compared, record.space) if compared else []
    return Findings(compared, evaluated, recommend(record, record.space, compared, evaluated))
