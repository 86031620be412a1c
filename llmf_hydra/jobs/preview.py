"""`job=preview`: the first rows as the trainer sees them, trained tokens in one colour and masked ones in another."""

import sys
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.data.preview import Preview, Segment, preview
from llmf_hydra.models.load import load_tokenizer

TRAINED, MASKED, CUT, PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[31m", "\x1b[0m"  # green, dim, red


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Print `job.preview_rows` rows, and leave them in `preview.txt` without colours."""
    job = cfg.job
    tokenizer = load_tokenizer(cfg.network)
    rows = preview(cfg.data, cfg.stage.rows, tokenizer, cfg.generation, job.preview_rows, cfg.packs)
    (out / "preview.txt").write_text(
        "\n\n".join("\n".join(row.lines()) for row in rows) + "\n", encoding="utf8"
    )
    colour = sys.stdout.isatty()
    print(
        f"{TRAINED}trained{PLAIN} {MASKED}masked{PLAIN}" if colour else "trained text stands between » and «"
    )
    for row in rows:
        print("\n".join(_lines(row) if colour else row.lines()), end="\n\n")


def _lines(row: Preview) -> Iterator[str]:
    yield f"{row.source} row {row.row}" + (f"  {CUT}{row.lost} tokens cut{PLAIN}" if row.lost else "")
    for name, segments in row.parts.items():
        yield f"[{name}: {sum(segment.tokens for segment in segments)} tokens]"
        yield "".join(_coloured(segment) for segment in segments)
    yield from row.difference


def _coloured(segment: Segment) -> str:
    return f"{TRAINED if segment.trained else MASKED}{segment.text}{PLAIN}"
