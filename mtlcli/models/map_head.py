"""Heads of tasks that predict maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class MapHead(nn.Module):
    """Head of a task that predicts a map: maps [B, features, h, w] → predictions [B, outputs, H, W].

    The predictions of the head are interpolated bilinearly to the size of the target, as in the networks for
    segmentation of torchvision (`align_corners=False`); they are left as they are if they have that size.

    Args:
        head: a head of maps, [B, features, h, w] → [B, outputs, h, w], or of vectors, [N, features] → [N, outputs],
            which is applied to each position.
        of_maps: whether it is a head of maps.
        size: height and width [H, W] of the target.
    """

    def __init__(self, head: nn.Module, of_maps: bool, size: tuple[int, ...]) -> None:
        super().__init__()
        self.head, self.of_maps = head, of_maps
        self.size = (size[0], size[1])

    def forward(self, x: Tensor) -> Tensor:
        """Compute the prediction.

        Args:
            x: representations, [B, features, h, w].

        Returns:
            Predictions, [B, outputs, H, W].
        """
        y: Tensor = self.head(x) if self.of_maps else self._at_each_position(x)
        if y.shape[2:] == self.size:
            return y
        return F.interpolate(y, self.size, mode="bilinear", align_corners=False)

    def _at_each_position(self, x: Tensor) -> Tensor:
        """Apply a head of vectors: [B, features, h, w] → [B, outputs, h, w], without a copy if x is channels-last."""
        positions = x.permute(0, 2, 3, 1)
        y: Tensor = self.head(positions.flatten(0, 2))
        return y.view(*positions.shape[:3], y.shape[1]).permute(0, 3, 1, 2)
