import pytest
import torch

from training.images.augmentation import Augmentation, sample_augmentation
from training.images.image_data import ImageSplit, batches


def draw(images: int, shift: int, *, flip: bool, seed: int = 0) -> Augmentation:
    generator = torch.Generator().manual_seed(seed)
    return sample_augmentation(images, shift, flip=flip, generator=generator, device=torch.device("cpu"))


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """An image (C, H, W) moved pixel by pixel; what comes in is 0."""
    result = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_flipped_and_then_moved_by_its_own_shift(channels: int) -> None:
    images = torch.randint(1, 256, (40, channels, 5, 7), dtype=torch.uint8)
    augmentation = draw(40, 2, flip=True)
    assert augmentation.flipped is not None
    results = torch.cat([augmentation.apply(images[:30], 0), augmentation.apply(images[30:], 30)])
    assert results.dtype == torch.uint8
    for number, (image, result) in enumerate(zip(images, results, strict=True)):
        flipped = image.flip(2) if augmentation.flipped[number] else image
        down, right = 2 - int(augmentation.down[number]), 2 - int(augmentation.right[number])
        assert torch.equal(result, moved(flipped, down, right))


def test_all_shifts_are_drawn_and_half_of_the_images_is_flipped() -> None:
    augmentation = draw(10_000, 2, flip=True)
    for shifts in (augmentation.down, augmentation.right):
        assert torch.bincount(shifts).tolist() == pytest.approx([2000] * 5, abs=200)
    assert augmentation.flipped is not None
    assert int(augmentation.flipped.sum()) == pytest.approx(5000, abs=200)
    assert not torch.equal(augmentation.down, augmentation.right)


def test_same_seed_draws_the_same() -> None:
    first, again, other = draw(100, 3, flip=True), draw(100, 3, flip=True), draw(100, 3, flip=True, seed=1)
    assert torch.equal(first.down, again.down)
    assert not torch.equal(first.down, other.down)


def test_without_shift_or_flip_the_other_stands_alone() -> None:
    images = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8)
    only_shift, only_flip = draw(20, 1, flip=False), draw(20, 0, flip=True)
    assert only_shift.flipped is None
    assert all(
        torch.equal(result, image) or torch.equal(result, image.flip(2))
        for image, result in zip(images, only_flip.apply(images, 0), strict=True)
    )
    assert not torch.equal(only_shift.apply(images, 0), images)


def test_batches_are_shifted_before_they_are_scaled_and_the_images_themselves_stay() -> None:
    split = ImageSplit(torch.full((10, 1, 3, 3), 255, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    images = torch.cat([images for images, _ in batches(split, 4, None, draw(10, 1, flip=False))])
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert (split.images == 255).all()
