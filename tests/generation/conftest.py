import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture_folder(tmp_path):
    """Six smooth, different pictures with telling names, as an operator would keep them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ["red-tomato", "green-beans", "man-with-hat", "city-at-night", "open-book", "white-goat"]
    for index, name in enumerate(names):
        noise = np.random.default_rng(index).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
    return folder
