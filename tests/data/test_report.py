"""What the data report tells of rows that are trained as they are, and of files that are refused."""

from pathlib import Path
from typing import Any

import pytest
from support.data_samples import alpaca, described, make_tokenizer, run

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.template import stop_sequences
from llmf_hydra.data.preview import preview
from llmf_hydra.data.sources.resolve import check_sources
from llmf_hydra.errors import Refused

GOOD = {"instruction": "hello", "output": "good"}


def both_ways(tokenizer: Any, dataset: str, kind: str = "dialogue", **settings: Any) -> list[list[str]]:
    """The report's lines, tokenized before and while streaming."""
    told: list[list[str]] = []
    for streaming in (False, True):
        made = run(tokenizer, dataset, kind, streaming=streaming, **settings)
        list(made.train)
        told.append(made.report.lines())
    return told


def test_special_tokens_within_the_text_are_counted_with_the_switch(tokenizer: Any, write: Any) -> None:
    path = write([GOOD, {**GOOD, "output": "a<|im_end|>b"}, {**GOOD, "instruction": "<|im_start|>"}])
    line = (
        "  special tokens within their text: 2 rows, read as special; "
        "model.split_special_tokens=true makes them plain text"
    )
    assert all(line in lines for lines in both_ways(tokenizer, path))
    split = make_tokenizer()
    split.split_special_tokens = True
    assert not any("special tokens" in line for line in run(split, path).report.lines())


def test_a_key_twice_in_a_row_is_counted(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"instruction": "a", "output": "b", "output": "c"}\n{"instruction": "a", "output": "c"}\n'
    )
    line = "  a key twice in a row: 1 rows, the last value counts"
    assert all(line in lines for lines in both_ways(tokenizer, str(path)))
    train = run(tokenizer, str(path)).train
    assert train[0]["input_ids"] == train[1]["input_ids"]


def test_chosen_equal_to_rejected_is_counted(tokenizer: Any, write: Any) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "b"}
    path = write([pair, {**pair, "rejected": "c"}])
    line = "  chosen equal to rejected: 1 rows, nothing to prefer"
    assert all(line in lines for lines in both_ways(tokenizer, path, "preference"))


@pytest.mark.parametrize(
    ("labels", "told"), [((True, True), "good"), ((False, False), "bad"), ((True, False), "")]
)
def test_labels_of_one_side_are_told(labels: tuple[bool, ...], told: str, tokenizer: Any, write: Any) -> None:
    path = write([{**GOOD, "kto_tag": label} for label in labels])
    for lines in both_ways(tokenizer, path, "feedback"):
        assert [line for line in lines if "one-sided" in line] == (
            [f"  one-sided: all 2 answers are labelled {told}"] if told else []
        )


def test_an_end_of_turn_of_several_tokens_is_told_and_generation_can_stop_there(
    tokenizer: Any, write: Any
) -> None:
    path = write([GOOD])
    settings = {"template": "llama3"}
    stops = stop_sequences(DataConfig(**settings), tokenizer)
    assert [tokenizer.decode(ids) for ids in stops] == ["<|eot_id|>", "<|im_end|>"]
    told = (
        f"data.template=llama3 ends a turn with <|eot_id|>, which is {len(stops[0])} tokens of this tokenizer"
    )
    assert len(stops[0]) > 1
    for lines in both_ways(tokenizer, path, **settings):
        assert any(line.startswith(told) for line in lines)
    assert run(tokenizer, path, template="chatml").report.notes == run(tokenizer, path).report.notes == []
    assert stop_sequences(DataConfig(), tokenizer) == [[2]]


def test_an_answer_that_was_cut_is_counted_for_each_kind(tokenizer: Any, write: Any) -> None:
    long = " good" * 50
    asked = {"dialogue": {**GOOD, "output": long}, "feedback": {**GOOD, "output": long, "kto_tag": True}}
    for kind, row in asked.items():
        for lines in both_ways(
            tokenizer,
            write([GOOD | ({"kto_tag": False} if kind == "feedback" else {}), row]),
            kind,
            cutoff_len=30,
        ):
            assert "  answers cut: 1, trained without an end of turn" in lines
    pair = write([{"prompt": "hello", "chosen": long, "rejected": long}])
    for lines in both_ways(tokenizer, pair, "preference", cutoff_len=30):
        assert "  answers cut: 2, trained without an end of turn" in lines


@pytest.mark.parametrize("packing", [False, True])
def test_preview_counts_the_cuts_that_training_makes(packing: bool, tokenizer: Any, tmp_path: Path) -> None:
    texts = [{"text": " good" * count} for count in (25, 3, 12)]
    table = described(tmp_path, texts, {"formatting": "text"})
    data = DataConfig(dataset="rows", dataset_dir=table, cutoff_len=10)
    shown = preview(data, "text", tokenizer, GenerationConfig(), 99, packing)
    made = run(tokenizer, "rows", "text", dataset_dir=table, cutoff_len=10, packing=packing).report.sources[0]
    assert sum(row.lost for row in shown) == made.tokens_cut == (0 if packing else 19)
    assert sum(bool(row.lost) for row in shown) == made.rows_cut


FILES = {
    "two joined arrays": (
        "a.json", '[{"instruction": "a", "output": "b"}]\n[{"instruction": "c", "output": "d"}]',
        "goes on after its array ends with row 1: '[{\"instruction\": \"c\"'; write one array",
    ),
    "words after an array": (
        "a.json", '[{"instruction": "a", "output": "b"}]' + " " * 3_000_000 + "x", "ends with row 1: 'x'",
    ),
    "a header with a column twice": (
        "a.csv", "instruction,output,output\na,b,c\n", "names the column 'output' twice in its header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_which_a_part_would_be_lost_is_refused(name: str, tokenizer: Any, tmp_path: Path) -> None:
    file, content, reason = FILES[name]
    (tmp_path / file).write_text(content)
    told = str(check_sources(DataConfig(dataset=str(tmp_path / file)), "dialogue")[0])
    assert f"{tmp_path / file} " in told and reason in told
    with pytest.raises(Refused) as refused:
        run(tokenizer, str(tmp_path / file), skip_bad_rows=True)
    assert reason in str(refused.value)


def test_white_space_after_an_array_is_nothing(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"instruction": "a", "output": "b"}]' + "\n" * 3_000_000)
    assert len(run(tokenizer, str(tmp_path / "a.json")).train) == 1


def test_media_that_no_table_describes_are_refused(tokenizer: Any, write: Any) -> None:
    """Also where only a later row has them."""
    for name in ("images", "videos", "audios"):
        path = write(
            [GOOD, {"instruction": "<image>hello", "output": "good", name: ["a.png"]}], f"{name}.jsonl"
        )
        with pytest.raises(Refused, match=f"has {name}, and only text is trained on; describe the file"):
            run(tokenizer, path)
    assert len(run(tokenizer, write(alpaca(2))).train) == 2
