"""Our steps beside those of the peers: kept figures are told as they are, and none may fall.

The slow test measures by turns what is kept for this kind of machine, and again where something has fallen: a machine
that others use slows both down, but not always alike. Where nothing is kept it has nothing to compare with.
"""

import json
from pathlib import Path

import pytest

from benchmarks import beside, kept, page
from benchmarks.kept import Ratio


def _file(folder: Path, version: str, measured: str, times: float) -> None:
    found = {
        "ours": {"step_s": 1.0, "whole_s": 7.0},
        "trl": {"times": {"median": times, "low": times - 0.1, "high": times + 0.2, "pairs": 6}, "times_whole": 1.25},
    }  # fmt: skip
    content = {"version": version, "measured": measured, "figures": {"beside": {"sft": found}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{version}.json").write_text(json.dumps(content), encoding="utf8")


def test_the_page_tells_each_version_in_the_order_of_measurement(tmp_path: Path) -> None:
    _file(tmp_path / "some-cpu-2-cores", "bbbbbbb", "2026-11-01T00:00:00+00:00", 1.29)
    _file(tmp_path / "some-cpu-2-cores", "aaaaaaa", "2026-12-01T00:00:00+00:00", 1.61)
    text, plot = (file.read_text(encoding="utf8") for file in page.write(tmp_path, tmp_path))
    assert "| sft beside TRL | 1.61 (1.51 to 1.81) | 1.25 | 6 |" in text
    assert "| medians | bbbbbbb | aaaaaaa |" in text and "| sft beside TRL | 1.29 | 1.61 |" in text
    assert (
        plot.index("<!-- bbbbbbb -->") < plot.index("<!-- aaaaaaa -->") and "<!-- sft beside TRL -->" in plot
    )
    assert [file.read_text(encoding="utf8") for file in page.write(tmp_path, tmp_path)] == [text, plot]


def test_figures_of_a_version_stand_in_one_file(tmp_path: Path) -> None:
    first = kept.keep({"beside": {"sft": {"a": 1}, "dpo": {"a": 2}}, "start": {"s": 3}}, tmp_path)
    assert first == kept.keep({"beside": {"dpo": {"a": 4}}}, tmp_path)
    assert first.relative_to(tmp_path) == Path(kept.kind()) / f"{kept.version()}.json"
    figures = json.loads(first.read_text(encoding="utf8"))["figures"]
    assert figures == {"beside": {"sft": {"a": 1}, "dpo": {"a": 4}}, "start": {"s": 3}}


def test_a_ratio_falls_by_more_than_a_tenth() -> None:
    before = {"sft": Ratio(1.5, 1.4, 1.6, 6), "dpo": Ratio(2.0, 1.9, 2.1, 6)}
    assert kept.fallen(before, {"sft": Ratio(1.36, 1.3, 1.4, 6)}) == []
    (said,) = kept.fallen(before, {"sft": Ratio(1.34, 1.3, 1.4, 6), "dpo": Ratio(2.2, 2.1, 2.3, 6)})
    assert said == "sft: 1.34 (1.30 to 1.40), kept are 1.50 (1.40 to 1.60)"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", beside.STAGES)
def test_no_stage_has_become_slower_beside_trl(stage: str) -> None:
    versions = kept.read().get(kept.kind(), [])
    name = f"{stage} beside TRL"
    known = [ratios[name] for ratios in (one.ratios() for one in versions) if name in ratios]
    if not known:
        pytest.skip(f"no figures of {name} are kept for {kept.kind()}; `make bench` keeps some")

    def now() -> list[str]:
        found = beside.beside(stage, "smollm2", only=["trl"])
        return kept.fallen({name: known[-1]}, {name: kept.ratio(found["trl"]["times"])})

    fallen = now() and now()
    assert not fallen, "\n".join(fallen)
