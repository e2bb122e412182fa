"""The public API: Python programs import these names from here, and they stay here when modules move."""

from search.ray_environment import set_ray_environment

set_ray_environment()

from search.control import control_study
from search.engine.study import Study, prepare_study
from search.outputs.best_model import BestModel, load_best
from search.outputs.tables import epoch_table, trial_table
from search.record.lookup import resumed_settings
from search.record.ranking import best_trial, ranked
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.run import run_study
from search.run_search import run_search
from search.settings import StudySettings
from search.study_result import StudyResult, load_study

__all__ = [
    "BestModel",
    "Study",
    "StudyRecord",
    "StudyResult",
    "StudySettings",
    "TrialRecord",
    "best_trial",
    "control_study",
    "epoch_table",
    "load_best",
    "load_study",
    "prepare_study",
    "ranked",
    "resumed_settings",
    "run_search",
    "run_study",
    "trial_table",
]
