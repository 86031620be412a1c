"""The page of kept figures: docs/benchmarks_history.md with a plot over versions, so that a slowdown shows.

python -m benchmarks.page [--results FOLDER] [--out FOLDER]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.kept import RESULTS, Ratio, Version, read

DOCS = Path(__file__).parents[1] / "docs"
PAGE = "benchmarks_history.md"
HEAD = """# Benchmarks over versions

Written by `make bench`; [benchmarks.md](benchmarks.md) says how each figure is measured. A ratio above 1 says how many
times as fast ours is. It is the median of pairs of steps that follow each other, on the same rows with one thread;
behind it stand the lowest and the highest. *As shipped* is the peer with gradient checkpointing on, its own default,
beside ours with it off; else both have it off. *Whole* is all of a training without the loading: our reference pass
comes before the first step, TRL's and LLaMA-Factory's within each.
"""
COLUMNS = 3  # of panels
SPAN = (3.4, 2.4)  # inches of a panel


def write(results: Path = RESULTS, out: Path = DOCS) -> list[Path]:
    """Write the page and a plot for each kind of machine; returns the files."""
    kinds = read(results)
    files = [out / PAGE]
    parts = [HEAD]
    for name, versions in kinds.items():
        plot = out / f"benchmarks_{name}.svg"
        draw(versions, plot)
        files.append(plot)
        parts.append("\n".join(_section(name, versions, plot.name)))
    files[0].write_text("\n".join(parts) + "\n", encoding="utf8")
    return files


def _section(name: str, versions: Sequence[Version], plot: str) -> Iterator[str]:
    last = versions[-1]
    yield f"## {name.replace('-', ' ')}\n"
    yield f"![ratios over versions]({plot})\n"
    yield f"Version {last.version}, measured {last.measured[:10]}:\n"
    yield "| | ours in steps | whole | pairs |"
    yield "| --- | --- | --- | --- |"
    whole = last.whole()
    for key, ratio in last.ratios().items():
        yield f"| {key} | {ratio} | {_number(whole.get(key))} | {ratio.pairs} |"
    yield ""
    if len(versions) > 1:
        yield from _over_versions(versions)


def _over_versions(versions: Sequence[Version]) -> Iterator[str]:
    ratios = [one.ratios() for one in versions]
    yield f"| medians | {' | '.join(one.version for one in versions)} |"
    yield "| --- " * (len(versions) + 1) + "|"
    for key in _names(ratios):
        values = (_number(known[key].median if key in known else None) for known in ratios)
        yield f"| {key} | {' | '.join(values)} |"
    yield ""


def _names(ratios: Sequence[Mapping[str, Ratio]]) -> list[str]:
    """Every name, in the order in which the newest version tells them."""
    return list(dict.fromkeys(name for known in reversed(ratios) for name in known))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def draw(versions: Sequence[Version], file: Path) -> None:
    """A panel per ratio: its median by version, and a bar from the lowest pair to the highest."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ratios = [one.ratios() for one in versions]
    names = _names(ratios)
    rows = max(1, -(-len(names) // COLUMNS))
    figure = Figure(figsize=(SPAN[0] * COLUMNS, SPAN[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        known = [(at, one[name]) for at, one in enumerate(ratios) if name in one]
        places, values = [at for at, _ in known], [one for _, one in known]
        medians = [one.median for one in values]
        bars = [
            [one.median - one.low for one in values],
            [one.high - one.median for one in values],
        ]
        panel.errorbar(places, medians, yerr=bars, fmt="o-", color="tab:blue", capsize=3, markersize=4)
        panel.axhline(1, color="0.6", linewidth=0.8)
        panel.set_title(name, fontsize=9)
        panel.set_ylim(bottom=0)
        panel.set_xlim(-0.5, len(versions) - 0.5)
        panel.set_xticks(range(len(versions)), [one.version for one in versions], fontsize=7, rotation=30)
        panel.tick_params(axis="y", labelsize=7)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    # The same figures give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "llmf_hydra"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def main() -> None:
    """Write the page anew from the kept figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=DOCS)
    asked = parser.parse_args()
    for file in write(asked.results, asked.out):
        print(file)


if __name__ == "__main__":
    main()
