"""text: one column of plain text, for pre-training."""

from collections.abc import Mapping

from llmf_hydra.data.formats.common import cell
from llmf_hydra.data.rows import BadRow, Row, need_text
from llmf_hydra.data.sources.dataset_info import Source


def convert(raw: Mapping[str, object], source: Source) -> Row:
    """One row; the column is called text, or prompt as in LLaMA-Factory. Raises BadRow."""
    name = "text" if source.column("text") else "prompt"
    column = source.column(name)
    if column is None:
        raise BadRow("text", "has no column", "name the column of the text: columns {prompt: ...}")
    text = need_text(cell(raw, source, name), column)
    if not text.strip():
        raise BadRow(column, "is empty", "remove the row")
    return Row(text=text)
