import cv2
import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side; two threads that wait for each other on busy cores take many times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
