"""What a study's record says beyond its numbers, for the summary and the report."""

from dataclasses import dataclass

from search.analysis.equal_budget import SameBudget, same_budget
from search.analysis.importance import Importance, importances
from search.analysis.recommendations import Advice, diagnose
from search.record.study_record import StudyRecord
from search.space.search_space import SearchSpace


@dataclass(frozen=True)
class Findings:
    """Importance and advice, and the trials on which they rest; empty where there are too few."""

    compared: SameBudget | None
    importances: list[Importance]
    advice: list[Advice]


def find(record: StudyRecord, space: SearchSpace) -> Findings:
    """Compute them."""
    compared = same_budget(record)
    found = importances(compared, space) if compared else []
    return Findings(compared, found, diagnose(record, space, compared, found))
