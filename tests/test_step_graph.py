"""When optimizer steps are replayed, without a GPU: what stands in for a captured step takes it when it is replayed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from studies import without_seconds
from torch import Tensor

from training import loop
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.optimization.step_graph import WARM_UP_STEPS, StepGraph

BATCH = 10
Step = Callable[[Tensor, Tensor], Tensor]


class PlainGraph(StepGraph):
    """Takes each step when it is replayed."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.replays = 0

    def _capture(self, step: Step) -> bool:
        class Graph:
            def replay(_) -> None:
                self.replays += 1
                self._loss = step(self._images, self._labels)

        self._graph: Any = Graph()
        return True


def trained(data: ImageData, graph: StepGraph | None, *, begin: int = 0) -> loop.Training:
    """Two epochs; of the first one only what comes after some steps is taken with the graph."""
    training = loop.Training(TrialConfig(epochs=2, batch_size=BATCH, seed=3, optimizer="adam"), data)
    for _, _ in zip(range(begin), training.train_epoch(), strict=False):
        pass
    state = training.state_dict()
    training.graph = graph
    training.load_state_dict(state)
    while training.epoch < 2:
        for _ in training.train_epoch():
            pass
        training.measure_epoch()
    return training


@pytest.mark.parametrize("begin", [0, 2])
def test_whole_batches_are_replayed_with_the_same_numbers(few_images: ImageData, begin: int) -> None:
    whole_batches, rest = divmod(len(few_images.train), BATCH)
    assert rest, "the last batch is smaller"
    graph = PlainGraph(BATCH)
    replayed, usual = trained(few_images, graph, begin=begin), trained(few_images, None, begin=begin)
    assert without_seconds(replayed.metrics) == without_seconds(usual.metrics)
    assert graph.replays == 2 * whole_batches - begin - WARM_UP_STEPS


def test_training_that_goes_on_with_its_last_batch_replays_the_next_epoch(few_images: ImageData) -> None:
    whole_batches = len(few_images.train) // BATCH
    graph = PlainGraph(BATCH)
    trained(few_images, graph, begin=whole_batches)
    assert graph.replays == max(0, whole_batches - WARM_UP_STEPS)


def test_memory_of_the_graph_is_given_back_before_batches_are_divided(
    few_images: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch does not fit beside the graph of the others."""
    graph, cross_entropy = PlainGraph(BATCH), torch.nn.functional.cross_entropy

    def beside_the_graph(logits: Tensor, labels: Tensor, *args: Any, **options: Any) -> Tensor:
        if graph.is_captured and len(labels) < BATCH:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(logits, labels, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", beside_the_graph)
    training = loop.Training(TrialConfig(epochs=2, batch_size=BATCH, seed=3), few_images)
    training.graph = graph
    for _ in training.train_epoch():
        pass
    assert graph.replays == len(few_images.train) // BATCH - WARM_UP_STEPS
    assert training.micro_batch.size is None
    for _ in training.train_epoch():
        pass
    assert graph.replays == len(few_images.train) // BATCH - WARM_UP_STEPS, "it is given up"
