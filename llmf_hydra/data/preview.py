"""What training will see of a row: its text, what of it is trained, and what was lost. For `job=preview`."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.render import Rendered
from llmf_hydra.data.rows import Row
from llmf_hydra.data.sources import hub, reader, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.tokenize.batches import write
from llmf_hydra.data.tokenize.features import Example, Setup
from llmf_hydra.data.tokenize.setup import make_setup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Segment:
    """A stretch of text, trained as a whole or not at all. `turn` counts answers from 1; 0 is the prompt."""

    text: str
    trained: bool
    turn: int
    tokens: int


@dataclass(frozen=True)
class Preview:
    """One row. `parts` has an entry for each column of tokens, in the order of `features.TOKEN_COLUMNS`."""

    source: str
    row: int
    parts: dict[str, list[Segment]]
    lost: int  # tokens cut to data.cutoff_len
    difference: list[str]  # from the text of the tokenizer's own template, as lines of a diff; empty if none

    def lines(self) -> list[str]:
        """For people: trained text stands between » and «."""
        head = f"{self.source} row {self.row}" + (f", {self.lost} tokens cut" if self.lost else "")
        lines = [head]
        for name, segments in self.parts.items():
            tokens = sum(segment.tokens for segment in segments)
            lines += [f"[{name}: {tokens} tokens]", "".join(_shown(segment) for segment in segments)]
        if self.difference:
            lines += ["differs from the tokenizer's own template:", *self.difference]
        return lines


def _shown(segment: Segment) -> str:
    return f"»{segment.text}«" if segment.trained else segment.text


def preview(
    data: DataConfig,
    kind: str,
    tokenizer: "PreTrainedTokenizerBase",
    generation: GenerationConfig,
    count: int,
    packing: bool = False,
) -> list[Preview]:
    """The first `count` usable rows of the training data, read and encoded as training does.

    A long text that goes on in further rows, as it does where rows are packed, is shown as these rows. Raises Refused.
    """
    setup = make_setup(data, kind, tokenizer, generation, packing)
    found: list[Preview] = []
    for source in resolve.resolve(data, data.dataset or "", "dataset"):
        source = hub.fetched(source, "data.dataset")
        found += islice(_of_source(data, setup, source, tokenizer), count - len(found))
    return found


def _of_source(
    data: DataConfig, setup: Setup, source: Source, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[Preview]:
    for read in reader.rows(source, setup.kind, islice(reader.read_files(source), data.max_samples)):
        written = write(setup, [read])
        encodings = setup.encoder.batch(written.texts())
        for _, row, texts in written.rows:
            for example in setup.examples(row, texts, encodings):
                parts = {name: _segments(name, ids, example, tokenizer) for name, ids in example.ids.items()}
                difference = _difference(row, texts, tokenizer)
                yield Preview(source.name, read.number, parts, example.lost, difference)


def _segments(
    name: str, ids: list[int], example: Example, tokenizer: "PreTrainedTokenizerBase"
) -> list[Segment]:
    if name != "input_ids":
        answer = name != "prompt_ids"
        return [Segment(str(tokenizer.decode(ids)), answer, int(answer), len(ids))]
    borders = [0, *(border for span in example.trained for border in span), len(ids)]
    made: list[Segment] = []
    for number, (start, end) in enumerate(pairwise(borders)):
        if start < end:
            trained = number % 2 == 1
            turn = (number + 1) // 2 if trained else 0
            made.append(Segment(str(tokenizer.decode(ids[start:end])), trained, turn, end - start))
    return made


def _difference(row: Row, texts: list[Rendered], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """How the text differs from what the tokenizer's own template writes of the same messages."""
    if row.text is not None or not tokenizer.chat_template:
        return []
    messages = [*row.prompt, *(row.answers[0] if texts[0].answers else [])]
    tools: Any = row.tools  # Transformers takes functions too
    try:
        own = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=not texts[0].answers
        )
    except Exception as error:  # as in `Chat.render`
        return [f"the tokenizer's template refuses this row: {error}"]
    return list(
        difflib.unified_diff(
            str(own).splitlines(), texts[0].text.splitlines(), "tokenizer", "ours", lineterm=""
        )
    )
