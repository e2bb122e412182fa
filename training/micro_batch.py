"""What happens where the memory does not suffice for a whole batch: its gradients are added up from parts of it."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that there is not enough memory, in this machine or in its GPU."""
    cause = error.__cause__
    is_itself = isinstance(error, torch.OutOfMemoryError | MemoryError) or says_out_of_memory(str(error))
    return is_itself or (cause is not None and is_out_of_memory(cause))


def says_out_of_memory(text: str) -> bool:
    """Whether a text has the words with which torch, CUDA, Python and others say that there is not enough memory."""
    return any(words in text for words in _WORDS)


def is_of_gpu(error: str) -> bool:
    """Whether the text of such an error speaks of the memory of a GPU."""
    return any(words in error for words in ("CUDA", "CUBLAS", "HIP out of memory"))


_WORDS = (
    *("can't allocate memory", "Cannot allocate memory", "MemoryError", "std::bad_alloc", "RESOURCE_EXHAUSTED"),
    *("CUDA out of memory", "HIP out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),
)


def in_fitting_batches(compute: Callable[[int], Result], size: int) -> Result:
    """Compute something with batches of a size, or with smaller ones if the memory does not suffice.

    Args:
        compute: Gets the number of images that go through a network at a time.
        size: The number to begin with.
    """
    while True:
        try:
            return compute(size)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2  # after the handler, which has released what was computed


class MicroBatch:
    """How many images of a batch go through the network at a time: all of them, as long as the memory suffices.

    If it does not, a batch is divided into parts whose gradients are added up before the optimizer step (gradient
    accumulation). The step is then that of the whole batch, up to the order in which numbers are added. It differs in a
    network that looks at several images together, which are those of a part (batch normalisation), and in what a
    network draws at random (dropout).
    """

    def __init__(self, model: nn.Module) -> None:
        """Let whole batches go through a network."""
        self._model = model
        self.size: int | None = None
        """The largest number of images that go through the network at a time; None for whole batches."""

    def backward(
        self,
        backward: Callable[..., Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        zero_grad: Callable[[], object],
        give_back: Callable[[], bool],
    ) -> Tensor:
        """Add the gradients of a batch to those of the parameters, in parts where the memory does not suffice.

        Args:
            backward: Adds those of images and labels, by their share of the batch, and returns this share of the loss.
            images: (B, C, H, W), float32.
            labels: (B,), int64.
            zero_grad: Forgets the gradients of a pass that failed.
            give_back: Gives back other memory before the batch is divided; returns whether there was any.

        Returns:
            The mean loss of the batch.
        """
        while True:
            try:
                if self.size is None:
                    return backward(images, labels)
                return torch.stack([backward(*part) for part in self.parts(images, labels)]).sum()
            except Exception as error:
                if not is_out_of_memory(error) or not (give_back() or self.halve(len(labels))):
                    raise
            # after the handler, which has released what the failed pass had computed
            zero_grad()
            if images.is_cuda:
                torch.cuda.empty_cache()

    def parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Divide a batch into parts of equal size, or nearly so.

        Yields:
            Images and labels of each part, and its share of the batch.
        """
        size = self.size or len(labels)
        number = -(-len(labels) // size)
        for part_images, part_labels in zip(images.tensor_split(number), labels.tensor_split(number), strict=True):
            yield part_images, part_labels, len(part_labels) / len(labels)

    def halve(self, images: int) -> bool:
        """Let half as many images go through the network as now; `images` is the size of the batch.

        Returns:
            Whether this was possible: an image is not divided.
        """
        together = min(images, self.size or images)
        if together == 1:
            return False
        self.limit(together - together // 2)
        return True

    def limit(self, size: int | None) -> None:
        """Set the largest number of images that go through the network at a time."""
        self.size = size
        if size == 1:
            spare_single_values(self._model)


def spare_single_values(model: nn.Module) -> None:
    """Let batch normalisation use its running statistics where a channel has one value, which has no variance."""

    def spare(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and inputs[0].numel() == inputs[0].shape[1]:
            module.eval()  # until the next epoch begins

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(spare)
