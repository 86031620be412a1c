"""A GGUF file that isn't whole is refused by its header, with its name, before anything reads it."""

import struct
from pathlib import Path

import pytest

from llmf_hydra.models.checks import gguf_file_problem
from llmf_hydra.models.sources.gguf_header import problem


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def whole(weights: int = 1, version: int = 3) -> bytes:
    values = text("general.alignment") + struct.pack("<II", 4, 32)
    values += text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    values += text("numbers") + struct.pack("<IIQ", 9, 5, 3) + bytes(12)
    tensors = b"".join(
        text(f"w{number}") + struct.pack("<IQQIQ", 2, 4, 4, 0, 64 * number) for number in range(weights)
    )
    head = b"GGUF" + struct.pack("<IQQ", version, weights, 3) + values + tensors
    return head + bytes(-len(head) % 32) + bytes(64 * weights)


def test_a_whole_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(whole(3))
    assert problem(file) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04", "is no GGUF file"),
        (b"GGUF", "is cut off: it ends within its header"),
        (whole(version=9), "has the version 9 of GGUF"),
        (whole(weights=0), "without weights"),
        (whole(3)[:70], "is cut off: it ends within its header"),
        (whole(3)[:-160], "is cut off: its weights reach beyond"),
        (whole().replace(struct.pack("<II", 4, 32), struct.pack("<II", 77, 32)), "no values of the type 77"),
    ],
)
def test_a_broken_file_is_told_with_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    found = gguf_file_problem("model.model_name_or_path", str(file))
    assert found is not None and told in str(found) and "broken.gguf" in str(found)
