"""The findings of a study for its summary and report: importances, costs of fixing, and recommendations."""

from dataclasses import dataclass

from search.analysis.equal_budget import EqualBudget, equal_budget
from search.analysis.fixing import Fixing, judge
from search.analysis.importance import Importance, importances
from search.analysis.recommendations import Recommendation, recommend
from search.record.study_record import StudyRecord


@dataclass(frozen=True)
class Findings:
    """What the trials of a study show, with the trials that were compared; empty where these are too few."""

    compared: EqualBudget | None
    importances: list[Importance]
    fixings: list[Fixing]
    recommendations: list[Recommendation]


def analyse(record: StudyRecord) -> Findings:
    """Compute the findings of a study."""
    compared = equal_budget(record)
    evaluated = importances(compared, record.space) if compared else []
    judgement = judge(record, record.space, compared)
    return Findings(compared, evaluated, judgement.fixings, recommend(record, record.space, judgement))
