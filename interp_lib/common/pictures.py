"""Pictures as bytes, and as addresses that a page holds itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def encoded(picture: np.ndarray | Image, kind: str, **options: Any) -> bytes:
    """A picture, uint8 (H, W, 3), as ``png`` or ``webp``; ``options`` are Pillow's."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(buffer, format=kind.upper(), **options)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """An address for ``src=`` or ``url()`` that is the picture."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
