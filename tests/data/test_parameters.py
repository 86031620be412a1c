"""Each parameter of the group: an outcome that differs with its value. (The cache: test_cache.)"""

import itertools
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, IterableDataset
from support.data_samples import alpaca, described, make_tokenizer, run, texts

from llmf_hydra.config.param import declaration
from llmf_hydra.config.schema import GROUPS
from llmf_hydra.data.tokenize import workers

THREE_TURNS = {
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "how"},
        {"role": "assistant", "content": "bad"},
    ]
}
OPENAI = {"formatting": "openai"}


def rows_of(rows: Any) -> list[int]:
    return [row["row"] for row in rows]


def test_each_parameter_is_named_in_these_tests() -> None:
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [name for name in GROUPS["data"].__dataclass_fields__ if not re.search(rf"\b{name}\b", here)]
    assert missing == []


def test_no_parameter_is_only_planned() -> None:
    fields = GROUPS["data"].__dataclass_fields__.values()
    assert [f.name for f in fields if declaration(f).planned] == []


def test_template(tokenizer: Any, write: Any) -> None:
    path = write([{"instruction": "hello", "output": "good"}])
    assert texts(tokenizer, run(tokenizer, path).train) == [
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\ngood<|im_end|>\n"
    ]
    assert texts(tokenizer, run(tokenizer, path, template="default").train) == [
        "Human: hello\nAssistant: good<|im_end|>\n"
    ]


def test_default_system(tokenizer: Any, write: Any) -> None:
    path = write(
        [{"instruction": "hello", "output": "good"}, {"instruction": "a", "output": "b", "system": "own"}]
    )
    said = texts(tokenizer, run(tokenizer, path, default_system="be good").train)
    assert said[0].startswith("<|im_start|>system\nbe good<|im_end|>\n<|im_start|>user\nhello")
    assert said[1].startswith("<|im_start|>system\nown<|im_end|>\n")
    assert "system" not in texts(tokenizer, run(tokenizer, path).train)[0]


def test_dataset_and_eval_dataset(tokenizer: Any, write: Any) -> None:
    first, second = write(alpaca(4)), write(alpaca(2, 4), "held.jsonl")
    made = run(tokenizer, first, eval_dataset=second)
    assert (len(made.train), len(made.eval)) == (4, 2)  # pyright: ignore
    assert run(tokenizer, first).eval is None


def test_eval_on_each_dataset(tokenizer: Any, write: Any) -> None:
    path = write(alpaca(4))
    table = {
        "a": {"file_name": write(alpaca(2, 4), "a.jsonl")},
        "b": {"file_name": write(alpaca(3, 6), "b.jsonl")},
    }
    table["t"] = {"file_name": path}
    whole = run(tokenizer, "t", eval_dataset="a,b", dataset_dir=table).eval
    each = run(tokenizer, "t", eval_dataset="a,b", dataset_dir=table, eval_on_each_dataset=True).eval
    assert isinstance(whole, Dataset)
    assert len(whole) == 5
    assert isinstance(each, dict)
    assert {name: rows_of(part) for name, part in each.items()} == {"a": [1, 2], "b": [1, 2, 3]}


def test_media_dir(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(b"")
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    row = {"instruction": "hello", "output": "good", "images": ["a.png"]}
    table = described(tmp_path, [row], {"columns": columns})
    with pytest.raises(Exception, match=r"a\.png, which does not exist; set data\.media_dir"):
        run(tokenizer, "rows", dataset_dir=table)
    made = run(tokenizer, "rows", dataset_dir=table, media_dir=str(tmp_path / "other"))
    assert made.train[0]["images"] == [str(tmp_path / "other" / "a.png")]


def test_cutoff_len(tokenizer: Any, write: Any) -> None:
    path = write([{"instruction": "hello", "output": " good" * 50}])
    lengths = [len(run(tokenizer, path, cutoff_len=limit).train[0]["input_ids"]) for limit in (20, 40, 2048)]
    assert lengths == [20, 40, 63]


def test_train_on_prompt(tokenizer: Any, write: Any) -> None:
    path = write([{"instruction": "hello", "output": "good"}])
    made = run(tokenizer, path, train_on_prompt=True).train[0]
    assert made["labels"] == made["input_ids"]
    assert run(tokenizer, path).train[0]["labels"] != made["labels"]


def test_mask_history(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [THREE_TURNS], OPENAI)
    assert texts(tokenizer, run(tokenizer, "rows", dataset_dir=table).train, "labels") == [
        "good<|im_end|>bad<|im_end|>"
    ]
    masked = run(tokenizer, "rows", dataset_dir=table, mask_history=True).train
    assert texts(tokenizer, masked, "labels") == ["bad<|im_end|>"]


def test_max_samples_takes_the_first_rows_of_each_dataset(tokenizer: Any, write: Any) -> None:
    names = f"{write(alpaca(4))},{write(alpaca(2, 4), 'b.jsonl')}"
    assert rows_of(run(tokenizer, names, max_samples=3).train) == [1, 2, 3, 1, 2]
    assert rows_of(run(tokenizer, names).train) == [1, 2, 3, 4, 1, 2]


@pytest.mark.parametrize(("val_size", "held"), [(0.25, 5), (3.0, 3), (0.001, 1)])
def test_val_size(val_size: float, held: int, tokenizer: Any, write: Any) -> None:
    path = write(alpaca(20))
    made = run(tokenizer, path, val_size=val_size)
    assert (len(made.train), len(made.eval)) == (20 - held, held)  # pyright: ignore
    assert sorted(rows_of(made.train) + rows_of(made.eval)) == list(range(1, 21))
    assert rows_of(made.eval) == rows_of(run(tokenizer, path, val_size=val_size).eval)
    others = [rows_of(run(tokenizer, path, val_size=val_size, seed=seed).eval) for seed in (1, 2, 3)]
    assert any(other != rows_of(made.eval) for other in others)


def test_val_size_must_leave_rows(tokenizer: Any, write: Any) -> None:
    with pytest.raises(Exception, match=r"data\.val_size=4: holds out 4 of 4 rows"):
        run(tokenizer, write(alpaca(4)), val_size=4)


class TestMixing:
    def sources(self, tokenizer: Any, write: Any, **settings: Any) -> list[int]:
        names = f"{write(alpaca(6))},{write(alpaca(2, 6), 'b.jsonl')}"
        return run(tokenizer, names, **settings).train["source"][:]

    def test_mix_strategy(self, tokenizer: Any, write: Any) -> None:
        assert self.sources(tokenizer, write) == [0] * 6 + [1] * 2
        assert self.sources(tokenizer, write, mix_strategy="interleave_under") == [0, 1, 0, 1]
        over = self.sources(tokenizer, write, mix_strategy="interleave_over")
        assert over == [0, 1] * 6

    def test_interleave_probs(self, tokenizer: Any, write: Any) -> None:
        settings = {"mix_strategy": "interleave_over"}
        many = self.sources(tokenizer, write, interleave_probs="0.9,0.1", **settings)
        few = self.sources(tokenizer, write, interleave_probs="0.3,0.7", **settings)
        assert Counter(many)[0] / len(many) > 0.7 > Counter(few)[0] / len(few)


class TestStreaming:
    def test_the_rows_are_those_that_are_kept_otherwise(self, tokenizer: Any, write: Any) -> None:
        path = write(alpaca(10))
        streamed = run(tokenizer, path, streaming=True, buffer_size=1).train
        assert isinstance(streamed, IterableDataset)
        assert list(streamed) == list(run(tokenizer, path).train)
        assert list(streamed) == list(run(tokenizer, path).train)  # a second epoch

    def test_buffer_size_shuffles(self, tokenizer: Any, write: Any) -> None:
        path = write(alpaca(50))
        orders = [rows_of(run(tokenizer, path, streaming=True, buffer_size=n).train) for n in (1, 5, 50)]
        assert orders[0] == list(range(1, 51))
        assert orders[1] != orders[0]
        assert sorted(orders[1]) == sorted(orders[2]) == orders[0]
        assert max(abs(row - at) for at, row in enumerate(orders[2])) > 10

    def test_each_evaluation_set(self, tokenizer: Any, write: Any) -> None:
        path, held = write(alpaca(4)), write(alpaca(2, 4), "held.jsonl")
        whole = run(tokenizer, path, streaming=True, eval_dataset=held).eval
        each = run(tokenizer, path, streaming=True, eval_dataset=held, eval_on_each_dataset=True).eval
        assert rows_of(whole) == [1, 2]
        assert isinstance(each, dict)
        assert rows_of(each[held]) == [1, 2]

    def test_another_epoch_is_another_order(self, tokenizer: Any, write: Any) -> None:
        train = run(tokenizer, write(alpaca(30)), streaming=True, buffer_size=30).train
        first = rows_of(train)
        assert rows_of(train) == first
        train.set_epoch(1)  # pyright: ignore
        assert rows_of(train) != first

    def test_val_size_is_a_count_of_first_rows(self, tokenizer: Any, write: Any) -> None:
        made = run(tokenizer, write(alpaca(10)), streaming=True, buffer_size=1, val_size=3)
        assert rows_of(made.eval) == [1, 2, 3]
        assert rows_of(made.train) == [4, 5, 6, 7, 8, 9, 10]

    def test_packed(self, tokenizer: Any, write: Any) -> None:
        made = run(
            tokenizer, write(alpaca(20)), streaming=True, packing=True, neat_packing=True, cutoff_len=100
        )
        packs = list(made.train)
        assert sorted(row for pack in packs for row in pack["row"]) == list(range(1, 21))
        assert all(sum(pack["seq_lengths"]) == len(pack["input_ids"]) <= 100 for pack in packs)
        assert len(packs) < 20

    def test_it_starts_before_the_end_is_read(self, tokenizer: Any, write: Any) -> None:
        """The bad row at the end is met only by who reads so far."""
        path = write([*alpaca(2000), {"instruction": "a", "output": ""}])
        made = run(tokenizer, path, streaming=True, buffer_size=1)
        assert [row["row"] for row in itertools.islice(made.train, 3)] == [1, 2, 3]
        assert made.report.sources[0].rows_read < 200
        with pytest.raises(Exception, match="row 2001: output is empty"):
            list(made.train)

    def test_the_buffer_is_full_soon(self, tokenizer: Any, write: Any) -> None:
        path = write(alpaca(20_000))
        begun = time.process_time()
        assert next(iter(run(tokenizer, path, streaming=True).train))["row"] > 64
        assert time.process_time() - begun < 2

    def test_mixed(self, tokenizer: Any, write: Any) -> None:
        names = f"{write(alpaca(3))},{write(alpaca(3, 3), 'b.jsonl')}"
        made = run(tokenizer, names, streaming=True, buffer_size=1, mix_strategy="interleave_under")
        assert [row["source"] for row in made.train] == [0, 1, 0, 1, 0]

    @pytest.mark.parametrize("kind", ["preference", "feedback", "prompt"])
    def test_other_kinds(self, kind: str, tokenizer: Any, write: Any) -> None:
        row = {"instruction": "hello", "output": "good", "kto_tag": True, "chosen": "good", "rejected": "bad"}
        if kind != "preference":
            row.pop("chosen")
        path = write([row] * 3)
        streamed = run(tokenizer, path, kind, streaming=True, buffer_size=1).train
        assert list(streamed) == list(run(tokenizer, path, kind).train)


def test_preprocessing_batch_size(tokenizer: Any, write: Any) -> None:
    path = write(alpaca(10))
    chunks = []
    for size in (3, 1000):
        made = run(tokenizer, path, preprocessing_batch_size=size, overwrite_cache=True).train
        chunks.append([len(batch) for batch in made.data.table.to_batches()])
        assert rows_of(made) == list(range(1, 11))
    assert chunks == [[3, 3, 3, 1], [10]]


def test_preprocessing_num_workers(tokenizer: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    pool = workers.ProcessPoolExecutor

    def counted(processes: int, *given: Any) -> Any:
        asked.append(processes)
        return pool(processes, *given)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", counted)
    path = write([*alpaca(25), {"instruction": "a", "output": ""}, *alpaca(5, 25)])
    settings = {"skip_bad_rows": True, "overwrite_cache": True, "preprocessing_batch_size": 4}
    alone = run(tokenizer, path, **settings)
    several = run(tokenizer, path, preprocessing_num_workers=2, **settings)
    assert asked == [2]
    assert several.train[:] == alone.train[:]
    assert several.report.sources[0].rejected == alone.report.sources[0].rejected == [26]
    assert several.report.sources[0].trained_tokens == alone.report.sources[0].trained_tokens


def test_packing_and_neat_packing(tokenizer: Any, write: Any) -> None:
    path = write(alpaca(10))
    assert len(run(tokenizer, path).train) == 10
    loose = run(tokenizer, path, packing=True)
    neat = run(tokenizer, path, packing=True, neat_packing=True)
    assert len(loose.train) == len(neat.train) == 1
    assert loose.report.digest != neat.report.digest


def test_tool_format(tokenizer: Any, write: Any) -> None:
    row = {"instruction": "hello", "output": "good", "tools": [{"name": "f"}]}
    said = [
        texts(tokenizer, run(tokenizer, write([row]), tool_format=name).train)[0]
        for name in ("default", "qwen", "mistral")
    ]
    assert "> Tool Name: f" in said[0]
    assert "<tools>" in said[1]
    assert "[AVAILABLE_TOOLS]" in said[2]


def test_an_unknown_tool_format_is_refused(tokenizer: Any, write: Any) -> None:
    with pytest.raises(Exception, match=r"data\.tool_format=qwem: .*did you mean 'qwen'"):
        run(tokenizer, write(alpaca()), tool_format="qwem")


def test_skip_bad_rows(tokenizer: Any, write: Any) -> None:
    path = write([*alpaca(2), {"instruction": "a"}, *alpaca(1, 2)])
    assert len(run(tokenizer, path, skip_bad_rows=True).train) == 3
    with pytest.raises(Exception, match="row 3"):
        run(tokenizer, path)


def test_dataset_dir_may_be_the_table_itself(tokenizer: Any, write: Any) -> None:
    assert len(run(tokenizer, "x", dataset_dir={"x": {"file_name": write(alpaca(2))}}).train) == 2


def test_the_tokenizers_own_marks_are_taken(write: Any) -> None:
    from support.data_samples import CHATML, CHATML_MARKED

    path = write(alpaca(3))
    marked, bare = (run(make_tokenizer(template), path).train for template in (CHATML_MARKED, CHATML))
    assert marked["labels"][:] == bare["labels"][:]
