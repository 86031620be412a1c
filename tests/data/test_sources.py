# ruff: noqa: E501 (a case a line reads better as a table)
"""Which datasets a config names: rows of dataset_info.json, files, folders, hubs; and what is wrong with them."""

import json
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from support.data_samples import alpaca, run

from llmf_hydra import refusals
from llmf_hydra.config.choices import STAGES
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.stage import StageConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.data.sources.resolve import resolve, shipped_data_dir
from llmf_hydra.errors import Refused

ROWS = alpaca(3)


def problems(kind: str = "dialogue", **settings: Any) -> list[str]:
    """What a start would say of the group, cheap checks and files."""
    stage = next(name for name, info in STAGES.items() if info.rows == kind)
    cfg = Config(stage=StageConfig(name=stage), data=DataConfig(**settings))
    cfg.launch.nproc_per_node = 1
    return [str(found) for found in refusals.problems(cfg, {}) if found.key.startswith(("data", "/"))]


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def as_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2))


def as_lines_in_json(path: Path) -> None:
    as_jsonl(path)


def as_csv(path: Path) -> None:
    path.write_text(
        "instruction,input,output\n" + "".join(f"{r['instruction']},,{r['output']}\n" for r in ROWS)
    )


def as_tsv(path: Path) -> None:
    path.write_text(
        "instruction\tinput\toutput\n" + "".join(f"{r['instruction']}\t\t{r['output']}\n" for r in ROWS)
    )


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def as_arrow_file(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def as_arrow_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


FILES = {
    "a.jsonl": as_jsonl,
    "a.json": as_json,
    "lines.json": as_lines_in_json,
    "a.csv": as_csv,
    "a.tsv": as_tsv,
    "a.parquet": as_parquet,
    "file.arrow": as_arrow_file,
    "stream.arrow": as_arrow_stream,
}


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_gives_the_same_rows(name: str, tokenizer: Any, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    made = run(tokenizer, str(tmp_path / name)).train
    assert [row["row"] for row in made] == [1, 2, 3]
    assert tokenizer.decode(made[2]["input_ids"]) == (
        "<|im_start|>user\nquestion 2<|im_end|>\n<|im_start|>assistant\nanswer 2<|im_end|>\n"
    )


def test_txt_is_a_text_a_line(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n\nworld\n")
    made = run(tokenizer, str(tmp_path / "a.txt"), "text").train
    assert [tokenizer.decode(row["input_ids"]) for row in made] == ["hello<|im_end|>", "world<|im_end|>"]


def test_a_json_array_longer_than_the_buffer(tokenizer: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmf_hydra.data.sources.files._CHUNK", 16)
    as_json(tmp_path / "a.json")
    assert [row["row"] for row in run(tokenizer, str(tmp_path / "a.json")).train] == [1, 2, 3]


def test_a_folder_is_all_its_files_in_order(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    as_jsonl(tmp_path / "in" / "b.jsonl")
    as_csv(tmp_path / "in" / "a.csv")
    made = run(tokenizer, str(tmp_path / "in"))
    assert len(made.train) == 6
    assert made.report.place(0, 2) == f"{tmp_path / 'in' / 'a.csv'} row 2"
    assert made.report.place(0, 5) == f"{tmp_path / 'in' / 'b.jsonl'} row 2"
    assert made.report.sources[0].files == {
        str(tmp_path / "in" / "a.csv"): 3,
        str(tmp_path / "in" / "b.jsonl"): 3,
    }


def test_several_names_are_several_sources(tokenizer: Any, write: Any, tmp_path: Path) -> None:
    table = {"one": {"file_name": write(alpaca(2))}, "two": {"file_name": write(alpaca(3, 5), "two.jsonl")}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(table))
    made = run(tokenizer, "one, two", dataset_dir=str(tmp_path))
    assert made.train["source"][:] == [0, 0, 1, 1, 1]
    assert [source.name for source in made.report.sources] == ["one", "two"]


def test_num_samples_takes_some_and_subset_and_split_are_kept(tokenizer: Any, write: Any) -> None:
    table = {"one": {"file_name": write(alpaca(20)), "num_samples": 5}}
    made = run(tokenizer, "one", dataset_dir=table)
    assert len(made.train) == 5
    assert made.train["row"][:] == run(tokenizer, "one", dataset_dir=table).train["row"][:]
    assert made.train["row"][:] != run(tokenizer, "one", dataset_dir=table, seed=1).train["row"][:]


def test_the_shipped_data_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = resolve(DataConfig(), "demo_instruct", "dataset")[0]
    assert source.files == (shipped_data_dir() / "demo_instruct.jsonl",)


def test_an_own_data_folder_goes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    as_jsonl(tmp_path / "data" / "mine.jsonl")
    (tmp_path / "data" / "dataset_info.json").write_text('{"mine": {"file_name": "mine.jsonl"}}')
    monkeypatch.chdir(tmp_path)
    assert resolve(DataConfig(), "mine", "dataset")[0].files == (tmp_path / "data" / "mine.jsonl",)
    assert "did you mean" not in problems(dataset="demo_instruct")[0]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dialogue", "demo_instruct"),
        ("preference", "demo_preference"),
        ("feedback", "demo_feedback"),
        ("text", "demo_text"),
        ("prompt", "demo_instruct"),
    ],
)
def test_the_demo_data_fits_its_kind_and_the_check_is_quick(kind: str, name: str) -> None:
    spent = []
    for _ in range(3):  # at its best: a collection of garbage in this large process takes as long
        begun = time.process_time()
        assert problems(kind, dataset=name) == []
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.2


WRONG = {
    "an unknown template": ({"dataset": "demo_instruct", "template": "chatmi"}, "did you mean 'chatml'?"),
    "unknown tools": ({"dataset": "demo_instruct", "tool_format": "qwem"}, "did you mean 'qwen'?"),
    "an unknown name": ({"dataset": "demo_instrct"}, "did you mean 'demo_instruct'?"),
    "a missing file": ({"dataset": "nothing.jsonl"}, "data.dataset=nothing.jsonl: there is no such file"),
    "no data": ({}, "data.dataset=null: no training data is named"),
    "an empty name": ({"dataset": "demo_instruct,,x"}, "has an empty name"),
    "a missing file of the table": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "none.jsonl"}}},
        "none.jsonl does not exist",
    ),
    "no place": ({"dataset": "x", "dataset_dir": {"x": {}}}, "names no file and no hub; set file_name or hf_hub_url"),
    "a script": (
        {"dataset": "x", "dataset_dir": {"x": {"script_url": "s.py"}}},
        "is made by a loading script (script_url), which datasets no longer runs",
    ),
    "an unknown format": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "formatting": "sharegtp"}}},
        "has formatting sharegtp, not one of alpaca, openai, sharegpt, text, trl; did you mean 'sharegpt'?",
    ),
    "an unknown key": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "filename": "a"}}},
        "has the unknown key filename; did you mean 'file_name'?",
    ),
    "an unknown column": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "columns": {"promt": "a"}}}},
        "has the unknown key columns.promt; did you mean 'prompt'?",
    ),
    "an unknown tag": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "tags": {"role": "a"}}}},
        "has the unknown key tags.role; did you mean 'role_tag'?",
    ),
    "a count that is none": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "num_samples": 0}}},
        "has num_samples 0, which is not a positive number of rows",
    ),
    "a row that is no mapping": ({"dataset": "x", "dataset_dir": {"x": "a.jsonl"}}, "is a str, not a mapping"),
    "columns that are a list": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "columns": ["prompt"]}}},
        "has columns a list, not a mapping of names",
    ),
    "tags that are text": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "tags": "role"}}}, "has tags text, not a mapping of names",
    ),
    "a file name that is a number": ({"dataset": "x", "dataset_dir": {"x": {"file_name": 3}}}, "has file_name a number, not text"),
    "a format that is a list": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "formatting": ["alpaca"]}}}, "has formatting a list, not text",
    ),
    "a ranking that is text": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "ranking": "yes"}}}, "has ranking text, not true or false",
    ),
    "a column that is a number": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "columns": {"prompt": 1}}}}, "has columns.prompt a number, not text",
    ),
    "a folder that is a mapping": (
        {"dataset": "x", "dataset_dir": {"x": {"file_name": "a", "folder": {}}}}, "has folder a mapping, not text",
    ),
    "a name that no file can have": ({"dataset": "x" * 300 + ".jsonl"}, "cannot be looked up: File name too long"),
    "a dataset named twice": (
        {"dataset": "demo_instruct,demo_instruct"},
        "names demo_instruct twice; name it once; to weight it, set data.mix_strategy=interleave_over",
    ),
    "a folder without a table": ({"dataset": "x", "dataset_dir": "/nowhere"}, "/nowhere/dataset_info.json does not exist"),
    "two that exclude each other": (
        {"dataset": "demo_instruct", "mask_history": True, "train_on_prompt": True},
        "data.mask_history=true: contradicts data.train_on_prompt=true",
    ),
    "evaluation twice": (
        {"dataset": "demo_instruct", "eval_dataset": "demo_instruct", "val_size": 0.1},
        "data.val_size=0.1: contradicts data.eval_dataset",
    ),
    "half a row": ({"dataset": "demo_instruct", "val_size": 2.5}, "must be a share below 1 or a whole number of rows"),
    "a share of a stream": ({"dataset": "demo_instruct", "val_size": 0.1, "streaming": True}, "give a number of rows"),
    "too few shares": (
        {"dataset": "demo_instruct", "interleave_probs": "0.5,0.5", "mix_strategy": "interleave_under"},
        "has 2 shares for 1 datasets",
    ),
    "shares of more than all": (
        {"dataset": "demo_instruct,demo_text", "interleave_probs": "0.9,0.5", "mix_strategy": "interleave_under"},
        "adds up to 1.4",
    ),
    "shares that are no numbers": ({"dataset": "demo_instruct", "interleave_probs": "all"}, "is not a list of numbers"),
    "neat and not packed": ({"dataset": "demo_instruct", "neat_packing": True, "packing": False}, "contradicts data.packing=false"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_the_key(name: str) -> None:
    settings, sentence = WRONG[name]
    found = problems(**settings)
    assert any(sentence in problem for problem in found), found


def test_all_problems_come_in_one_answer(write: Any) -> None:
    found = problems(dataset=f"nothing.jsonl,{write([{'instruction': 'a', 'output': ''}])}", val_size=2.5)
    assert len(found) == 4
    assert [part for part in ("val_size", "nothing.jsonl", "row 1", "1 bad row") if part in "\n".join(found)] == [
        "val_size", "nothing.jsonl", "row 1", "1 bad row",
    ]  # fmt: skip


def test_only_dialogues_and_texts_can_be_packed() -> None:
    assert any("only texts and dialogues can be packed" in p for p in problems("preference", packing=True))


def test_a_hub_that_cannot_be_reached_is_said_with_the_key(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Dataset:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(
        Refused, match=r"data\.dataset=owner/name: could not be loaded from the Hugging Face hub"
    ):
        run(tokenizer, "owner/name")


def test_a_hub_dataset_is_fetched_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, split: str, data_dir: str | None) -> Dataset:
        asked.append((name, subset, split, data_dir))
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    table = {"x": {"hf_hub_url": "owner/name", "subset": "small", "split": "test", "folder": "in"}}
    for _ in range(2):
        assert len(run(tokenizer, "x", dataset_dir=table).train) == 3
    assert asked == [("owner/name", "small", "test", "in")]


def test_a_hub_without_its_package_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for key, package, extra in (("ms", "modelscope", "modelscope"), ("om", "openmind_hub", "openmind")):
        with pytest.raises(Refused) as refused:
            run(tokenizer, "x", dataset_dir={"x": {f"{key}_hub_url": "o/n"}})
        assert f"x: needs the package {package}; pip install 'llmf_hydra[{extra}]'" in str(refused.value)


def test_a_dataset_of_modelers_is_read(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`openmind_hub` downloads a repository of files, which is then a folder."""
    asked: list[str] = []

    def snapshot_download(repo_id: str, repo_type: str) -> str:
        asked.append(f"{repo_type} {repo_id}")
        (tmp_path / "snapshot").mkdir(exist_ok=True)
        as_jsonl(tmp_path / "snapshot" / "train.jsonl")
        return str(tmp_path / "snapshot")

    package = ModuleType("openmind_hub")
    package.__dict__["snapshot_download"] = snapshot_download
    package.__spec__ = ModuleSpec("openmind_hub", None)
    monkeypatch.setitem(sys.modules, "openmind_hub", package)
    for _ in range(2):
        assert len(run(tokenizer, "x", dataset_dir={"x": {"om_hub_url": "owner/name"}}).train) == 3
    assert asked == ["dataset owner/name"]


def test_a_cloud_file_is_fetched(tokenizer: Any, write: Any) -> None:
    table = {"x": {"cloud_file_name": f"file://{write(alpaca(3))}"}}
    assert len(run(tokenizer, "x", dataset_dir=table).train) == 3


def test_the_check_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llmf_hydra.config.groups.data import DataConfig; from llmf_hydra.data.sources.resolve import check_sources\n"
        "from llmf_hydra.cli import data\n"
        "assert check_sources(DataConfig(dataset='demo_instruct'), 'dialogue') == []\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pyarrow', 'jinja2', 'yaml'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_hub_dataset_is_streamed_without_being_fetched(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` takes a folder of that name for the hub's, and reads it by the same way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    rows = [{"instruction": "hello", "output": answer} for answer in ("good", "bad", "")]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"x": {"hf_hub_url": "owner/name"}}
    prepared = run(tokenizer, "x", dataset_dir=table, streaming=True, skip_bad_rows=True)
    found = [(row["row"], tokenizer.decode([i for i in row["labels"] if i >= 0])) for row in prepared.train]
    assert sorted(found) == [(1, "good<|im_end|>"), (2, "bad<|im_end|>")]
    assert not (tmp_path / "cache" / "hub").exists()
    with pytest.raises(Refused, match=r"data\.dataset=x: could not be loaded from the Hugging Face hub"):
        run(tokenizer, "x", dataset_dir={"x": {"hf_hub_url": "owner/none"}}, streaming=True)
