"""A Gaussian process over configurations and epochs, which predicts learning curves from parts of others."""

import copy
import math
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
SMALLEST_NOISE = 1e-6
"""Added to the variance of the noise, so that the covariance can be factorised."""
STEPS = 25
"""Steps of the optimizer that fits the parameters; it goes on from the last fit."""


class Observations(NamedTuple):
    """Measurements of learning curves, one a row.

    Where predictions are asked for, one time and one curve may stand for those of all places.
    """

    places: Array
    """Coordinates of the configuration (measurements, dimensions), each in [0, 1]."""
    times: Array
    """How far the training was, from 0 to 1 (measurements)."""
    curves: NDArray[np.int64]
    """Number of the learning curve (measurements)."""


class _Parameters(NamedTuple):
    """Parameters of the model; all but the last two are logarithms."""

    lengths: Tensor
    """Distance over which a coordinate changes the cost (dimensions)."""
    whole: Tensor
    """Variance of what the configuration adds to the whole curve."""
    shape: Tensor
    """Variance of what the configuration adds to the shape of the curve."""
    own: Tensor
    """Variance of what only this training adds to its curve."""
    time: Tensor
    """Distance over which the time changes the cost."""
    noise: Tensor
    """Variance of what a measurement adds."""
    mean: Tensor
    """Mean at the beginning."""
    slope: Tensor
    """What the time adds to the mean, from the beginning to the end."""


_PRIORS = {
    "whole": (-1.0, 1.0),
    "shape": (-1.5, 1.0),
    "own": (-2.5, 1.0),
    "time": (-0.5, 0.5),
    "noise": (-5.0, 1.5),
    "mean": (1.0, 1.0),
    "slope": (-0.5, 1.0),
}
"""Mean and standard deviation of the normal prior of each parameter; costs are warped as `warp` does."""
_LENGTH = (0.7, 0.8)
"""Typical distance in three dimensions (it grows with the root of their number), and the deviation of its logarithm."""
_BOUNDS = {"lengths": (-3.0, 4.0), "time": (-2.5, 2.0), "noise": (-9.0, 1.0), "mean": (-5.0, 5.0), "slope": (-5.0, 5.0)}
_VARIANCE_BOUNDS = (-6.0, 3.0)


class CurveModel:
    """Predicts the cost of a configuration after some epochs, from measurements of curves that need not be complete.

    The cost is a sum of Gaussian processes: of the configuration, of the configuration and the time, and, for each
    training by itself, of the time; the kernels are Matern 5/2 and squared exponential. So what is seen of a curve says
    something about its end, and about similar configurations. The parameters are the most probable ones.

    Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1; curves as in Swersky et al.
    2014, "Freeze-Thaw Bayesian Optimization".
    """

    def __init__(self, dimensions: int) -> None:
        """Begin with the means of the priors.

        Args:
            dimensions: Number of coordinates of a configuration.
        """
        typical = math.log(_LENGTH[0]) + 0.5 * math.log(max(1, dimensions) / 3)
        self._dimensions = dimensions
        self._means = np.array([typical] * dimensions + [mean for mean, _ in _PRIORS.values()])
        self._deviations = np.array([_LENGTH[1]] * dimensions + [deviation for _, deviation in _PRIORS.values()])
        names = ["lengths"] * dimensions + [*_PRIORS]
        self._bounds = [_BOUNDS.get(name, _VARIANCE_BOUNDS) for name in names]
        self._values = self._means
        self._fitted_to = 0

    def fit(self, observations: Observations, costs: Array) -> None:
        """Find the most probable parameters, and learn from these measurements.

        While there is less than a tenth more of them than at the last time, the parameters stay as they are.

        Args:
            observations: The measurements.
            costs: Their warped costs, lower is better (measurements).
        """
        if len(costs) >= max(self._fitted_to + 1, 1.1 * self._fitted_to):
            from scipy.optimize import minimize  # a tenth of a second

            self._fitted_to = len(costs)
            arguments = _tensors(observations), torch.as_tensor(costs)
            options = {"maxiter": STEPS}
            found = minimize(
                self._loss, self._values, arguments, "L-BFGS-B", jac=True, bounds=self._bounds, options=options
            )
            self._values = found.x
        self.learn(observations, costs)

    def learn(self, observations: Observations, costs: Array) -> None:
        """Learn from these measurements, instead of those before, with the parameters as they are."""
        self._learned = observations, costs
        self._seen = _tensors(observations)
        with torch.no_grad():
            self._parameters = self._unpack(torch.as_tensor(self._values))
            self._factor, self._weights = _solve(self._parameters, self._seen, torch.as_tensor(costs))

    def with_lengths(self, factor: float) -> Self:
        """A model that has learned the same, and in which configurations at other distances are alike.

        Args:
            factor: What the lengths of this model are multiplied by.
        """
        other = copy.copy(self)
        other._values = self._values.copy()
        other._values[: self._dimensions] += math.log(factor)
        other.learn(*self._learned)
        return other

    def predict(self, observations: Observations) -> tuple[Array, Array]:
        """Mean and standard deviation of the cost at other places and times, without what a measurement adds.

        A curve with a number that was not measured is one of a new training; of it, the deviation leaves out what only
        this training adds.
        """
        asked = _tensors(observations)
        with torch.no_grad():
            parameters = self._parameters
            covariance = _covariance(parameters, asked, self._seen)
            mean = _trend(parameters, asked.times) + covariance @ self._weights
            explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False).square().sum(0)
            is_measured = torch.isin(asked.curves, self._seen.curves)
            variance = parameters.whole + parameters.shape + parameters.own * is_measured - explained
        return mean.numpy(), variance.clamp(min=1e-9).sqrt().numpy()

    def _loss(self, values: Array, seen: "_Tensors", costs: Tensor) -> tuple[float, Array]:
        """The negative logarithm of the posterior density of parameters, and its gradient."""
        free = torch.tensor(values, requires_grad=True)
        parameters = self._unpack(free)
        factor, weights = _solve(parameters, seen, costs)
        residuals = costs - _trend(parameters, seen.times)
        deviations = (free - torch.as_tensor(self._means)) / torch.as_tensor(self._deviations)
        loss = 0.5 * (residuals @ weights + deviations.square().sum()) + factor.diagonal().log().sum()
        (gradient,) = torch.autograd.grad(loss, free)
        return loss.item(), gradient.numpy()

    def _unpack(self, values: Tensor) -> _Parameters:
        lengths, variances, trend = values.split([self._dimensions, len(_PRIORS) - 2, 2])
        return _Parameters(lengths.exp(), *variances.exp(), *trend)


def warp(costs: Array) -> Array:
    """Costs on a scale on which the best is 0 and the median 1, and higher ones differ by their logarithm.

    So a few bad trainings do not hide the differences between good ones. An infinite cost, of a training that failed,
    is a little more than the highest one. At least one must be finite.
    """
    known = costs[np.isfinite(costs)]
    best, scale = known.min(), max(float(np.median(known) - known.min()), 1e-9)
    scaled = (np.where(np.isfinite(costs), costs, known.max() + 0.5 * scale) - best) / scale
    warped: Array = np.where(scaled > 1, 1 + np.log(np.maximum(scaled, 1)), scaled)
    return warped


class _Tensors(NamedTuple):
    """Observations as tensors."""

    places: Tensor
    times: Tensor
    curves: Tensor


def _tensors(observations: Observations) -> _Tensors:
    return _Tensors(*map(torch.as_tensor, observations))


def _trend(parameters: _Parameters, times: Tensor) -> Tensor:
    return parameters.mean + parameters.slope * times


def _solve(parameters: _Parameters, seen: _Tensors, costs: Tensor) -> tuple[Tensor, Tensor]:
    """Factorise the covariance of measurements, and solve it for what the trend does not explain."""
    noise = parameters.noise + SMALLEST_NOISE
    covariance = _covariance(parameters, seen, seen) + noise * torch.eye(len(costs), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance)
    residuals = costs - _trend(parameters, seen.times)
    return factor, torch.cholesky_solve(residuals[:, None], factor)[:, 0]


def _covariance(parameters: _Parameters, first: _Tensors, second: _Tensors) -> Tensor:
    """The covariance of each of the first measurements (rows) with each of the second ones (columns)."""
    rows, columns = first.places / parameters.lengths, second.places / parameters.lengths
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T
    distances = (5 * squares.clamp(min=1e-12)).sqrt()
    alike = (1 + distances + distances.square() / 3) * (-distances).exp()
    steps = ((first.times[:, None] - second.times[None]) / parameters.time).square()
    same = (first.curves[:, None] == second.curves[None]).double()
    of_configurations = alike * (parameters.whole + parameters.shape * (-steps / 2).exp())
    covariance: Tensor = of_configurations + parameters.own * same * (-steps / 8).exp()
    return covariance
