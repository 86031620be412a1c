"""Tokenized data is made once: found when nothing changed, made anew when anything did, and always whole."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import CHATML, alpaca, make_tokenizer, run

from llmf_hydra.config.groups.rlhf import RlhfConfig
from llmf_hydra.data.cache import store
from llmf_hydra.errors import Refused, TrainingFailed

HERE = Path(__file__).parent


def found(tokenizer: Any, path: str, **settings: Any) -> bool:
    """Whether the rows were tokenized before."""
    return run(tokenizer, path, **settings).report.sources[0].found


def test_nothing_changed_and_it_is_found(tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    assert not found(tokenizer, path)
    assert found(tokenizer, path)
    assert found(make_tokenizer(), path)  # another process would make its own tokenizer


def test_runs_that_differ_in_what_the_data_does_not_read_tokenize_once(tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    made = []
    for beta in (0.1, 0.5):
        assert (
            RlhfConfig(pref_beta=beta).pref_beta == beta
        )  # a run's other settings never reach the data engine
        made.append(run(tokenizer, path, seed=int(beta * 10)).report)
    assert [report.sources[0].found for report in made] == [False, True]
    assert made[0].sources[0].digest == made[1].sources[0].digest


CHANGES = {
    "cutoff": {"cutoff_len": 10},
    "prompt trained": {"train_on_prompt": True},
    "history masked": {"mask_history": True},
    "template": {"template": "chatml"},
    "system": {"default_system": "be good"},
    "rows": {"max_samples": 2},
    "tools": {"tool_format": "qwen"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changed_and_it_is_made_again(name: str, tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    run(tokenizer, path)
    assert not found(tokenizer, path, **CHANGES[name])


def test_one_row_changed_and_it_is_made_again(tokenizer: Any, write: Any) -> None:
    run(tokenizer, write(alpaca()))
    changed = alpaca()
    changed[2]["output"] = "another"
    path = write(changed)
    assert not found(tokenizer, path)
    assert tokenizer.decode(run(tokenizer, path).train[2]["input_ids"]).endswith("another<|im_end|>\n")


def test_the_text_of_the_template_changed_and_it_is_made_again(tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    run(tokenizer, path)
    assert not found(make_tokenizer(CHATML.replace("assistant\n", "assistant\n\n")), path)


def test_a_new_token_and_it_is_made_again(tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    run(tokenizer, path)
    other = make_tokenizer()
    other.add_tokens(["answer 1"])
    assert not found(other, path)


def test_padding_of_the_tokenizer_changes_nothing(write: Any) -> None:
    path = write(alpaca())
    tokenizer = make_tokenizer()
    run(tokenizer, path)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=3)
    assert found(tokenizer, path)


def test_overwrite_cache_makes_it_again(tokenizer: Any, write: Any) -> None:
    path = write(alpaca())
    run(tokenizer, path)
    assert not found(tokenizer, path, overwrite_cache=True)
    assert found(tokenizer, path)


def test_another_dataset_beside_it_is_no_reason_to_tokenize_again(tokenizer: Any, write: Any) -> None:
    first, second = write(alpaca()), write(alpaca(3, 10), "more.jsonl")
    run(tokenizer, first)
    made = run(tokenizer, f"{first},{second}")
    assert [source.found for source in made.report.sources] == [True, False]


def _prepare(path: str, results: Any) -> None:
    made = run(make_tokenizer(), path)
    results.put((made.report.sources[0].found, made.report.sources[0].digest, len(made.train)))


def test_four_processes_at_once_make_one_cache(own_cache: Path, write: Any) -> None:
    path = write(alpaca(300))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_prepare, args=(path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    made = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sorted(one[0] for one in made) == [False, True, True, True]  # one made it, three found it
    assert {one[1:] for one in made} == {(made[0][1], 300)}
    assert [p.name for p in (own_cache / "data").iterdir() if p.is_dir()] == [made[0][1]]


KILLED = """
import sys, time
sys.path.insert(0, {here!r})
from support.data_samples import make_tokenizer, run
from llmf_hydra.data.cache import dataset_cache as keep
whole = keep.tokenized_by
def slow(*given):
    for number, batch in enumerate(whole(*given)):
        yield batch
        print("batch", flush=True)
        time.sleep(60)
keep.tokenized_by = slow
run(make_tokenizer(), {path!r}, preprocessing_batch_size=10)
"""


def test_a_killed_process_leaves_nothing_that_is_used(own_cache: Path, tokenizer: Any, write: Any) -> None:
    path = write(alpaca(50))
    code = KILLED.format(here=str(HERE.parent), path=path)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"batch\n"  # some rows are written
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = [p for p in (own_cache / "data").iterdir() if p.is_dir()]
    assert len(left) == 1
    assert left[0].name.startswith(".")
    made = run(tokenizer, path)
    assert not made.report.sources[0].found
    assert len(made.train) == 50
    assert [p.name for p in (own_cache / "data").iterdir() if p.is_dir()] == [made.report.sources[0].digest]


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise Refused(["no"])

    with pytest.raises(Refused):
        store.obtain(tmp_path, "name", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["name.lock"]


def test_the_others_wait_for_the_process_that_makes_the_data(
    tokenizer: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """data_shared_file_system: rank 4, first of the second node, makes its own data or waits for rank 0."""
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    path = write(alpaca())
    monkeypatch.setattr("llmf_hydra.data.cache.store._PATIENCE", 0.3)
    with pytest.raises(Exception, match="never finished"):
        run(tokenizer, path, data_shared_file_system=True)
    assert not found(tokenizer, path, data_shared_file_system=False)
    assert found(tokenizer, path, data_shared_file_system=True)


def _as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, port: int = 1) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))


def test_the_others_hear_why_the_data_could_not_be_made(
    tokenizer: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write([{"instruction": "hello", "output": ""}])
    _as_rank(monkeypatch, 0)
    with pytest.raises(Refused, match="output is empty"):
        run(tokenizer, path)
    _as_rank(monkeypatch, 1)
    with pytest.raises(Refused, match="output is empty"):
        run(tokenizer, path)
    monkeypatch.setattr("llmf_hydra.data.cache.store._PATIENCE", 0.3)
    _as_rank(monkeypatch, 1, port=2)  # of another launch: what went wrong before is not its own fault
    with pytest.raises(TrainingFailed, match="never finished"):
        run(tokenizer, path)


def _rank(rank: int, path: str, results: Any) -> None:
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "9"})
    if rank == 0:
        time.sleep(0.5)  # the other looks first, and finds the old rows
    made = run(make_tokenizer(), path, overwrite_cache=True)
    rows = Path(str(made.train.cache_files[0]["filename"]))  # pyright: ignore
    results.put((rank, made.report.sources[0].found, rows.stat().st_ino))


def test_with_overwrite_cache_the_second_process_waits_for_the_new_rows(
    own_cache: Path, tokenizer: Any, write: Any
) -> None:
    path = write(alpaca(50))
    digest = run(tokenizer, path).report.sources[0].digest
    old = (own_cache / "data" / digest / "rows.arrow").stat().st_ino
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, path, results)) for rank in (1, 0)]
    for process in processes:
        process.start()
    (first, first_found, first_rows), (second, second_found, second_rows) = sorted(
        results.get(timeout=60) for _ in processes
    )
    for process in processes:
        process.join(60)
    assert (first, first_found, second, second_found) == (0, False, 1, True)
    assert first_rows == second_rows != old


def test_a_second_start_is_quick(tokenizer: Any, write: Any) -> None:
    path = write(alpaca(2000))
    run(tokenizer, path)
    begun = time.process_time()
    made = run(tokenizer, path)
    assert made.train[0]["row"] == 1
    assert time.process_time() - begun < 1


class TestTokenizedPath:
    def test_saved_and_loaded(self, tokenizer: Any, write: Any, tmp_path: Path, monkeypatch: Any) -> None:
        path, kept = write(alpaca(10)), tmp_path / "kept"
        first = run(tokenizer, path, tokenized_path=str(kept), val_size=3)
        monkeypatch.setenv("LLMF_CACHE", str(tmp_path / "other"))
        second = run(tokenizer, path, tokenized_path=str(kept), val_size=3)
        assert not (tmp_path / "other").exists()
        assert first.train[:] == second.train[:]
        assert first.eval[:] == second.eval[:]  # pyright: ignore
        assert second.report.digest == first.report.digest

    def test_another_setting_is_refused_by_name(self, tokenizer: Any, write: Any, tmp_path: Path) -> None:
        path, kept = write(alpaca()), str(tmp_path / "kept")
        run(tokenizer, path, tokenized_path=kept)
        with pytest.raises(Refused) as refused:
            run(tokenizer, path, tokenized_path=kept, cutoff_len=64, mask_history=True)
        assert len(refused.value.problems) == 2
        assert "was made with data.cutoff_len=2048, and the config says 64" in str(refused.value)
        assert "was made with data.mask_history=false, and the config says true" in str(refused.value)

    def test_other_rows_are_refused(self, tokenizer: Any, write: Any, tmp_path: Path) -> None:
        kept = str(tmp_path / "kept")
        run(tokenizer, write(alpaca()), tokenized_path=kept)
        with pytest.raises(Refused, match="was made with datasets="):
            run(tokenizer, write(alpaca(5)), tokenized_path=kept)

    def test_without_a_dataset_it_is_taken_as_it_is(self, tokenizer: Any, write: Any, tmp_path: Path) -> None:
        kept = str(tmp_path / "kept")
        run(tokenizer, write(alpaca()), tokenized_path=kept)
        assert len(run(tokenizer, None, tokenized_path=kept).train) == 4

    def test_a_strange_folder_is_refused(self, tokenizer: Any, write: Any, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "notes.txt").write_text("mine")
        with pytest.raises(Refused, match="holds no tokenized data of ours"):
            run(tokenizer, write(alpaca()), tokenized_path=str(tmp_path / "kept"))
        assert [p.name for p in (tmp_path / "kept").iterdir()] == ["notes.txt"]

    def test_everything_is_written_within_an_empty_folder(
        self, tokenizer: Any, write: Any, tmp_path: Path
    ) -> None:
        """Also where a process was killed in it; the names of evaluation sets are no paths in it."""
        kept = tmp_path / "in" / "kept"
        (kept / ".data-killed").mkdir(parents=True)
        held = {
            "a/../../b": {"file_name": write(alpaca(2, 4), "held.jsonl")},
            "t": {"file_name": write(alpaca())},
        }
        settings = {"eval_dataset": "a/../../b", "eval_on_each_dataset": True, "tokenized_path": str(kept)}
        for _ in range(2):
            made = run(tokenizer, "t", dataset_dir=held, **settings)
            assert isinstance(made.eval, dict)
            assert {name: len(part) for name, part in made.eval.items()} == {"a/../../b": 2}
        assert [p.name for p in (tmp_path / "in").iterdir()] == ["kept"]
        assert sorted(p.name for p in kept.iterdir()) == ["data", "data.lock"]

    def test_an_evaluation_that_is_not_parted_has_no_name(
        self, tokenizer: Any, write: Any, tmp_path: Path
    ) -> None:
        settings = {"tokenized_path": str(tmp_path / "kept"), "val_size": 1.0}
        for _ in range(2):
            assert len(run(tokenizer, write(alpaca()), **settings).eval) == 1  # pyright: ignore


def test_the_report_and_the_bad_rows_go_into_the_run_folder(
    tokenizer: Any, write: Any, tmp_path: Path
) -> None:
    path = write([*alpaca(3), {"instruction": "x", "output": ""}])
    made = run(tokenizer, path, skip_bad_rows=True)
    folder = tmp_path / "run"
    folder.mkdir()
    made.write(folder)
    report = json.loads((folder / "data.json").read_text())
    assert report["sources"][0]["rows_kept"] == 3
    assert report["sources"][0]["rejected"] == [4]
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert rejected[0]["row"] == 4
    assert rejected[0]["reason"] == "is empty"
    assert rejected[0]["content"] == {"instruction": "x", "output": ""}
