import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gas.clock import SystemClock
from gas.generation.signing import TestAuthority, sign_medium


def picture(seed: int = 0, side: int = 128) -> Image.Image:
    """A smooth random picture; pictures of two seeds have unrelated perceptual hashes."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return TestAuthority(tmp_path_factory.mktemp("authority"), SystemClock())


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """An authority that the network doesn't know."""
    return TestAuthority(tmp_path_factory.mktemp("stranger"), SystemClock(), name="Strange authority")


@pytest.fixture(scope="session")
def make():
    """Encode a picture: ``make(seed, kind, **options)``."""
    return lambda seed=0, kind="PNG", **options: encoded(picture(seed), kind, **options)


@pytest.fixture(scope="session")
def sign(authority):
    """Sign bytes as the operator does: ``sign(data, mime)``."""
    leaf = authority.leaf("operator", "Operator One")
    return lambda data, mime="image/png": sign_medium(data, mime, leaf, title="task", model="a model")
