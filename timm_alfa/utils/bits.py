"""One bit per image, as text that JSON holds: 10,000 images take 1.7 kB."""

import base64
import binascii
from dataclasses import dataclass
from typing import Sequence

import numpy as np


@dataclass(frozen=True)
class PackedBits:
    """Truth values of some images, in their order.

    Attributes:
        images: How many there are.
        correct: How many of them are true.
        bits: Base64 of eight per byte, the first of them in the highest bit.
    """

    images: int
    correct: int
    bits: str

    @classmethod
    def pack(cls, flags: Sequence[bool]) -> 'PackedBits':
        """Packs truth values."""
        values = np.asarray(flags, dtype=bool)
        text = base64.b64encode(np.packbits(values).tobytes()).decode()
        return cls(images=len(values), correct=int(values.sum()), bits=text)

    def unpack(self) -> np.ndarray:
        """The truth values, bool (images,).

        Raises:
            ValueError: The bits are not base64, or do not match the counts.
        """
        try:
            content = base64.b64decode(self.bits, validate=True)
        except binascii.Error as error:
            raise ValueError(f'the bits are not base64: {error}.') from error
        if len(content) != -(-self.images // 8):
            raise ValueError(f'{len(content)} bytes of bits do not fit {self.images} images.')
        flags = np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=self.images).astype(bool)
        if flags.sum() != self.correct:
            raise ValueError(f'{flags.sum()} bits are set, but the record counts {self.correct} correct images.')
        return flags
