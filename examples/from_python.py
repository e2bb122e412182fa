"""Run a study from Python: the settings have the names of the options of search/run.py, and the tables are DataFrames.

python examples/from_python.py
"""

import sys

from search.api import run_search

if __name__ == "__main__":
    results = sys.argv[1] if len(sys.argv) > 1 else "results"
    study = run_search(dataset="digits", num_samples=4, epochs=3, results_dir=results)
    print(study.trials.groupby("optimizer")["val_accuracy"].max())
