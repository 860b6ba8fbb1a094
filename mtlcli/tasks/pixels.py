"""Losses and counts of the pixels of maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlcli.specs import labelled_pixels
from mtlcli.tasks.sample_weights import weighted_mean


def pixel_weights(weight: Tensor | None, mask: Tensor) -> Tensor | None:
    """Return the weight of each pixel.

    Args:
        weight: weights of the images, [B], or of their pixels, [B, H, W]; None for equal weights.
        mask: bool [B, H, W].

    Returns:
        [B, H, W]; None for equal weights.
    """
    return weight if weight is None or weight.ndim > 1 else weight.view(-1, 1, 1).expand_as(mask)


def counted_pixels(target: Tensor, weight: Tensor | None) -> Tensor:
    """Mark the pixels that count in a loss: those that are labelled and have a weight above 0.

    Args:
        target: labels, [B, H, W] or [B, C, H, W].
        weight: weights of the pixels, [B, H, W]; None for equal weights.

    Returns:
        bool [B, H, W].
    """
    mask = labelled_pixels(target)
    return mask if weight is None else mask & (weight > 0)


def pixel_mean(losses: Tensor, mask: Tensor, weight: Tensor | None) -> Tensor:
    """Compute the mean of the losses of the pixels in a mask, Σwℓ / Σw with weights w.

    A pixel outside the mask gets a gradient of exactly 0, provided that its loss is finite (0 × ∞ is NaN).

    Args:
        losses: losses, [B, H, W].
        mask: bool [B, H, W], False for missing labels and for weights of 0.
        weight: weights of the pixels, [B, H, W]; None for equal weights.

    Returns:
        The mean, 0-d; 0 with a zero gradient if the mask is empty.
    """
    if weight is not None:
        return weighted_mean(losses.flatten(), mask.flatten(), weight.flatten())
    return losses.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def flatten_maps(
    prediction: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Flatten a batch of maps, so that each number is an example of its own.

    The mean over the numbers is the mean over the pixels of the mean over their channels. A pixel of which a channel is
    missing is missing altogether.

    Args:
        prediction: predictions, [B, C, H, W].
        target: labels of floats, [B, H, W] or [B, C, H, W].
        weight: weights of the images, [B], or of their pixels, [B, H, W]; None for equal weights.

    Returns:
        Predictions [n, 1], labels [n] and weights [n] or None, where n is B·C·H·W.
    """
    pixels = labelled_pixels(target)
    weights = pixel_weights(weight, pixels)
    if target.ndim == 4:
        target = target.masked_fill(~pixels.unsqueeze(1), torch.nan)
        weights = None if weights is None else weights.unsqueeze(1).expand_as(target)
    return prediction.reshape(-1, 1), target.flatten(), None if weights is None else weights.flatten()


def count_codes(codes: Tensor, mask: Tensor, size: int) -> Tensor:
    """Count the codes of the pixels of each image, without waiting for the device.

    Args:
        codes: codes from 0 to size − 1, int64 [B, pixels]; any number outside the mask.
        mask: the pixels that count, bool [B, pixels].
        size: number of codes.

    Returns:
        int64 [B, size].
    """
    images = len(codes)
    first = torch.arange(images, device=codes.device).unsqueeze(1) * (size + 1)
    places = (codes.masked_fill(~mask, size) + first).flatten()  # the last place is of the pixels that don't count
    counts = torch.zeros(images * (size + 1), dtype=torch.int64, device=codes.device)
    counts.scatter_add_(0, places, torch.ones((), dtype=torch.int64, device=codes.device).expand_as(places))
    return counts.view(images, size + 1)[:, :size]


class RescaleMaps(nn.Module):
    """Conversion of standardized predictions z to the target's units, z·std + mean, in float32.

    Args:
        mean: mean of the training labels.
        std: standard deviation of the training labels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([mean]))
        self.register_buffer("std", torch.tensor([std]))

    def forward(self, z: Tensor) -> Tensor:
        """Convert standardized predictions, [B, C, H, W], to the target's units, float32 [B, C, H, W]."""
        return z.float() * self.std + self.mean
