"""How often the interval of a winner holds its true mean, if trainings were drawn from normal distributions.

    python benchmarks/confirm_simulation.py

Several configurations are confirmed, and the winner has the best lower end of its interval. Compared are intervals by
each configuration's own deviation, and those of `search/confirm.py`: by no less than the median of all deviations. All
is in standard deviations of one training.
"""

import itertools

import numpy as np
from scipy.special import stdtrit

DRAWS = 20_000
ROUNDING = 0.6
"""One of 240 images, where a training's accuracy varies by 0.7 points."""
CASES = {
    "alike": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "steady to erratic": ((0.0, 0.0, 0.0), (0.5, 1.0, 2.0)),
    "one hopeless": ((0.0, 0.0, -80.0), (1.0, 1.0, 8.0)),
    "five alike": ((0.0,) * 5, (1.0,) * 5),
}
"""True means, to which a random part is added, and deviations."""


def simulate(seeds: int, case: str, spread: float, step: float) -> dict[str, tuple[float, ...]]:
    """Parts of intervals that hold, their width, and by how much the chosen mean is lower than the best; by rule."""
    chance = np.random.default_rng(0)
    about, deviations = map(np.array, CASES[case])
    means = about + chance.normal(0, spread, (DRAWS, len(about)))
    drawn = means[..., None] + deviations[:, None] * chance.normal(size=(*means.shape, seeds))
    if step:
        drawn = np.round(drawn / step) * step
    seen, own = drawn.mean(axis=-1), drawn.std(axis=-1, ddof=1)
    found: dict[str, tuple[float, ...]] = {}
    for rule, deviation in (("own", own), ("usual", np.maximum(own, np.median(own, axis=1, keepdims=True)))):
        reach = stdtrit(seeds - 1, 0.975) * deviation / np.sqrt(seeds)
        winner = np.arange(DRAWS), np.argmax(seen - reach, axis=1)
        held = np.abs(seen - means)[winner] <= reach[winner]
        missed = means.max(axis=1) - means[winner]
        found[rule] = (float(held.mean()), float(2 * reach[winner].mean()), float(missed.mean()))
    return found


def main() -> None:
    print("seeds  deviations          means  rounding     own: held   width  missed   usual: held   width  missed")
    for seeds, case, spread, step in itertools.product((2, 3, 5, 10), CASES, (0.0, 0.7), (0.0, ROUNDING)):
        numbers = itertools.chain(*simulate(seeds, case, spread, step).values())
        held, width, missed, *usual = numbers
        print(
            f"{seeds:>5}  {case:<17} {spread:>7}  {step:>8}  {held:>12.3f}  {width:>6.2f}  {missed:>6.2f}"
            f"  {usual[0]:>12.3f}  {usual[1]:>6.2f}  {usual[2]:>6.2f}"
        )


if __name__ == "__main__":
    main()
