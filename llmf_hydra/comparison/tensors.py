"""Tensors of safetensors files as NumPy arrays, read where they lie: no torch, and no copy of a whole file."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HEADER = 8  # bytes that hold the length of the header
# bfloat16 is the upper half of a float32.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
         "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip
PIECE = 2**22  # elements compared at a time


class Tensor:
    """One tensor of a file: its type and shape, and its elements in pieces."""

    def __init__(self, file: Path, begin: int, end: int, dtype: str, shape: list[int]):
        self.dtype, self.shape = dtype, shape
        self._file, self._begin, self._bytes = file, begin, end - begin

    def pieces(self) -> Iterator[np.ndarray]:
        """The elements, flat, as float64, in pieces of the same sizes for equal shapes. Raises KeyError for an
        unknown type."""
        kind = np.dtype(TYPES[self.dtype])
        count = self._bytes // kind.itemsize
        if not count:
            return
        flat = np.memmap(self._file, kind, "r", self._begin, (count,))
        for start in range(0, count, PIECE):
            part = np.asarray(flat[start : start + PIECE])
            if self.dtype == "BF16":
                part = (part.astype("<u4") << 16).view("<f4")
            yield part.astype(np.float64)


def tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by their names."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(HEADER), "little")
        header = json.loads(stream.read(length))
    start = HEADER + length
    return {
        name: Tensor(
            file,
            start + entry["data_offsets"][0],
            start + entry["data_offsets"][1],
            entry["dtype"],
            entry["shape"],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference of two tensors' elements; infinite where types or shapes differ.

    A number against a NaN is an infinite difference, two NaN are none.
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return float("inf")
    largest = 0.0
    for left, right in zip(one.pieces(), other.pieces(), strict=True):
        with np.errstate(invalid="ignore"):
            apart = np.abs(left - right)
        apart[(left == right) | (np.isnan(left) & np.isnan(right))] = 0.0
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()))
    return largest
