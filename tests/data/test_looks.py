"""The commands, the preview and the picture: what a user looks at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data_samples import alpaca, described, run

from llmf_hydra.cli.data import main
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.lengths import draw_lengths, row_lengths
from llmf_hydra.data.preview import preview

TALK = {
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "how"},
        {"role": "assistant", "content": "bad"},
    ]
}


def folder_with(tmp_path: Path, rows: list[Any], info: dict[str, Any]) -> str:
    table = described(tmp_path, rows, info)
    (tmp_path / "dataset_info.json").write_text(json.dumps(table))
    return str(tmp_path)


def test_list_says_kinds_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranked = {"instruction": "a", "chosen": "b", "rejected": "c"}
    folder = folder_with(tmp_path, [ranked, {"instruction": "a"}], {"ranking": True})
    assert main(["--dir", folder, "list"]) == 0
    assert "rows                     alpaca, preference, prompt: 2 rows, 1 bad" in capsys.readouterr().out


def test_list_of_the_shipped_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert "openai, dialogue, prompt:" in said
    assert "text: " in said


def test_validate_names_each_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, [*alpaca(2), {"instruction": "a", "output": ""}], {})
    assert main(["--dir", folder, "validate", "rows"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("rows.jsonl row 3: output is empty; an answer to be learned needs text")
    assert lines[1] == "rows: 3 rows, 1 bad"


def test_validate_of_sound_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, alpaca(2), {})
    assert main(["--dir", folder, "validate", "rows", "--kind", "dialogue"]) == 0
    assert main(["--dir", folder, "validate", "rows", "--kind", "feedback"]) == 1
    assert "rows: 2 rows, 0 bad" in capsys.readouterr().out


def test_validate_of_an_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, alpaca(2), {})
    assert main(["--dir", folder, "validate", "row"]) == 2
    assert "did you mean 'rows'?" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["openai", "sharegpt", "alpaca"])
def test_a_converted_dataset_gives_the_same_tokens(to: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [TALK, {"messages": TALK["messages"][1:3]}], {"formatting": "openai"})
    out = tmp_path / "out.jsonl"
    assert main(["--dir", folder, "convert", "rows", "--to", to, "--out", str(out)]) == 0
    before = run(tokenizer, "rows", dataset_dir=folder)
    after = run(tokenizer, "x", dataset_dir={"x": {"file_name": str(out), "formatting": to}})
    assert before.train[:] == after.train[:]


@pytest.mark.parametrize("to", ["openai", "sharegpt", "alpaca"])
def test_a_converted_ranked_dataset(to: str, tokenizer: Any, tmp_path: Path, capsys: Any) -> None:
    ranked = {"instruction": "hello", "input": "", "chosen": "good", "rejected": "bad", "system": "be"}
    folder = folder_with(tmp_path, [ranked], {"ranking": True})
    out = tmp_path / "out.jsonl"
    assert main(["--dir", folder, "convert", "rows", "--to", to, "--out", str(out)]) == 0
    entry = json.loads(capsys.readouterr().out.split("for dataset_info.json: ")[1])
    table = {"x": {**entry, "file_name": str(out)}}
    before = run(tokenizer, "rows", "preference", dataset_dir=folder)
    assert before.train[:] == run(tokenizer, "x", "preference", dataset_dir=table).train[:]


def test_tools_survive_sharegpt_and_are_refused_by_alpaca(
    tokenizer: Any, tmp_path: Path, capsys: Any
) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "one"},
            {"role": "assistant", "content": "good"},
        ],
        "tools": [{"name": "f"}],
    }
    folder = folder_with(tmp_path, [row], {"formatting": "openai"})
    out = tmp_path / "out.jsonl"
    assert main(["--dir", folder, "convert", "rows", "--to", "sharegpt", "--out", str(out)]) == 0
    table = {"x": {"file_name": str(out), "formatting": "sharegpt"}}
    before = run(tokenizer, "rows", dataset_dir=folder, template="qwen")
    assert before.train[:] == run(tokenizer, "x", dataset_dir=table, template="qwen").train[:]
    assert main(["--dir", folder, "convert", "rows", "--to", "alpaca"]) == 2
    assert "a row uses tools, which this format cannot hold" in capsys.readouterr().err


def test_convert_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, alpaca(2), {})
    assert main(["--dir", folder, "convert", "rows", "--to", "openai", "--out", f"{folder}/rows.jsonl"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_preview_shows_what_is_trained_and_what_was_lost(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [TALK], {"formatting": "openai"})
    data = DataConfig(dataset="rows", dataset_dir=table, cutoff_len=30)
    shown = preview(data, "dialogue", tokenizer, GenerationConfig(), 4)
    assert len(shown) == 1
    assert shown[0].lost == 15
    segments = [(s.text, s.trained, s.turn) for s in shown[0].parts["input_ids"]]
    head = "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhow<|im_end|>\n<|im_start|>assistant\n"
    assert segments == [(head, False, 0), ("bad<|im_end|>", True, 1), ("\n", False, 0)]
    assert shown[0].difference == []
    assert "»bad<|im_end|>«" in "\n".join(shown[0].lines())


def test_preview_shows_the_difference_from_the_tokenizers_own_template(tokenizer: Any, write: Any) -> None:
    data = DataConfig(dataset=write([{"instruction": "hello", "output": "good"}]), template="default")
    shown = preview(data, "dialogue", tokenizer, GenerationConfig(), 1)
    assert "-hello<|im_end|>" in shown[0].difference
    assert "+Human: hello" in shown[0].difference


def test_preview_of_ranked_rows(tokenizer: Any, write: Any) -> None:
    data = DataConfig(dataset=write([{"prompt": "hello", "chosen": "good", "rejected": "bad"}]))
    parts = preview(data, "preference", tokenizer, GenerationConfig(), 1)[0].parts
    assert [(name, segment.text) for name, (segment,) in parts.items()] == [
        ("prompt_ids", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"),
        ("chosen_ids", "good<|im_end|>"),
        ("rejected_ids", "bad<|im_end|>"),
    ]


def test_lengths_of_each_kind(tokenizer: Any, write: Any) -> None:
    ranked = write([{"prompt": "hello", "chosen": "good", "rejected": "bad"}])
    assert row_lengths(run(tokenizer, ranked, "preference").train).tolist() == [14]
    assert row_lengths(run(tokenizer, write(alpaca(2)), "prompt").train).tolist() == [14, 14]
    texts = run(tokenizer, write([{"text": "hello"}, {"text": "hello world"}]), "text").train
    assert row_lengths(texts).tolist() == [2, 3]
    assert row_lengths(texts.select([1])).tolist() == [3]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_lengths({"rows": np.array([3, 5, 900])}, 1000, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
