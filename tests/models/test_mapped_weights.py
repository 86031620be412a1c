"""Frozen weights in the type of their file are its pages, which all processes share: no copy, and none by training."""

import re
import sys
from pathlib import Path

import pytest
from support.stage_runs import SGD, Build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(.*)$")


def mapped(file: Path) -> list[tuple[range, dict[str, int]]]:
    """Each place where a file is mapped in this process, and its kilobytes by kind of page."""
    places: list[tuple[range, dict[str, int]]] = []
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf8").splitlines():
        if start := LINE.match(line):
            inside = start[3] == str(file.resolve())
            places += [(range(int(start[1], 16), int(start[2], 16)), {})] if inside else []
        elif inside and line.endswith(" kB"):
            kind, _, size = line.removesuffix(" kB").partition(":")
            places[-1][1][kind] = int(size)
    return places


@pytest.mark.parametrize(("dtype", "shares"), [("float32", True), ("bfloat16", False)])
def test_the_frozen_base_of_lora_is_mapped_where_its_type_is_the_files(
    dtype: str, shares: bool, build: Build
) -> None:
    from llmf_hydra.models.builtin import tiny

    trainer = build("stage=sft", *SGD, f"model.compute_dtype={dtype}")
    trainer.train()
    frozen = [weight for weight in trainer.model.parameters() if not weight.requires_grad]
    places = mapped(tiny.ready() / "model.safetensors")
    in_file = [any(weight.data_ptr() in place for place, _ in places) for weight in frozen]
    assert len(frozen) > 10 and all(in_file) == any(in_file) == shares
    if shares:
        # Another test of this process may have mapped the file too, and trained all of it.
        own = [pages for place, pages in places if any(weight.data_ptr() in place for weight in frozen)]
        assert sum(pages["Rss"] for pages in own) * 1024 > sum(weight.nbytes for weight in frozen) * 0.9
        assert all(pages["Anonymous"] == 0 for pages in own), "none was written to, which would copy it"
