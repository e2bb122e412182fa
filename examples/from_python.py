"""Run a study from Python: the settings have the names of the options of search/run.py, and pandas reads the tables.

python examples/from_python.py
"""

import sys
from pathlib import Path

import pandas as pd

from search.api import StudySettings, prepare_study, run_study

if __name__ == "__main__":
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results").absolute()
    study = prepare_study(StudySettings(dataset="digits", num_samples=4, epochs=3, results_dir=results))
    run_study(study)
    trials = pd.read_csv(study.record.folder / "trials.csv")
    print(trials.groupby("optimizer")["val_accuracy"].max())
