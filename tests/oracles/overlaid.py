"""Two overlaid images, pixel by pixel, from the recipe: canvas 36×36, [0:28] and [6:34], maximum, nearest resize."""

import numpy as np


def overlaid(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[28, 28] and [28, 28] → [28, 28], all uint8.

    Pixel i of the result shows the canvas where its middle falls: at (i + 1/2)·36/28 pixels, as Pillow's NEAREST does.
    """
    result = np.zeros((28, 28), np.uint8)
    for row in range(28):
        for column in range(28):
            y, x = ((2 * place + 1) * 36 // 56 for place in (row, column))
            if y < 28 and x < 28:
                result[row, column] = left[y, x]
            if 6 <= y < 34 and 6 <= x < 34:
                result[row, column] = max(result[row, column], right[y - 6, x - 6])
    return result
