"""What a user sees of the data engine: through the real command line, one start for several proofs."""

import json
from pathlib import Path

from support.command_line import Cli

GOOD = {"instruction": "hello", "output": "good"}


def test_the_users_own_folder_is_left_alone_and_the_report_tells_of_the_rows(
    cli: Cli, tmp_path: Path
) -> None:
    """An evaluation folder holds a dataset_info.json of the user's own, and is a dataset's name."""
    held = tmp_path / "held"
    held.mkdir()
    (held / "rows.jsonl").write_text(json.dumps(GOOD))
    (held / "dataset_info.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in held.iterdir()}
    odd = {"instruction": "a", "output": "b", "tools": [{"name": "f", "description": "\ud83d"}]}
    lines = [GOOD, {**GOOD, "output": "a<|im_end|>b"}, {**GOOD, "output": "word " * 400}, odd]
    repeated = '{"instruction": "a", "output": "b", "output": "c"}'
    (tmp_path / "mine.jsonl").write_text("\n".join([*map(json.dumps, lines), repeated]))
    done = cli(
        "job=check", "stage=sft", "model=tiny", "data.dataset=mine.jsonl", f"data.eval_dataset={held}",
        "training.eval_strategy=epoch", "data.eval_on_each_dataset=true", "data.tokenized_path=kept",
        "data.cutoff_len=128", "data.skip_bad_rows=true", "data.template=llama3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in held.iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["data", "data.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "kept", "mine.jsonl", "outputs"]
    for told in (
        "answers cut: 1, trained without an end of turn",
        "special tokens within their text: 1 rows, read as special; model.split_special_tokens=true",
        "a key twice in a row: 1 rows",
        "left out, bad: 1 rows (row 4), see rejected.jsonl",
        "data.template=llama3 ends a turn with <|eot_id|>, which is",
    ):
        assert told in done.stdout


def test_what_would_be_lost_or_misread_is_refused(cli: Cli, tmp_path: Path) -> None:
    row = json.dumps(GOOD)
    files = {
        "two.json": f"[{row}][{row}]",
        "twice.csv": "instruction,output,output\na,b,c\n",
        "image.jsonl": json.dumps({**GOOD, "instruction": "<image>", "images": ["a.png"]}),
        "role.jsonl": json.dumps({"messages": [{"role": ["user"], "content": "a"}]}),
        "digits.jsonl": f'{{"instruction": "a", "output": "b", "n": {"9" * 5000}}}',
        "deep.jsonl": f'{{"instruction": "a", "output": "b", "n": {"[" * 9999}{"]" * 9999}}}',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for name, coding in (("wide.jsonl", "utf-16"), ("wide.json", "utf-16-le"), ("wide.csv", "utf-16-be")):
        files[name] = f"{row}\n" * 3
        (tmp_path / name).write_bytes(files[name].encode(coding))
    table = {"columns": {"file_name": "two.json", "columns": ["a"]}, "name": {"file_name": 3}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(table))
    done = cli(
        "stage=sft", "model=tiny", "data.dataset_dir=.", f"data.dataset='{','.join([*files, *table])}'"
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for told in (
        "two.json goes on after its array ends with row 1",
        "twice.csv names the column 'output' twice in its header",
        "data.dataset=image.jsonl: has images, and only text is trained on",
        "role.jsonl row 1: messages[0].role is a list, not text",
        "digits.jsonl row 1: holds a number of 5000 digits",
        "deep.jsonl row 1: is nested too deeply",
        *(
            f"{name} is UTF-16, not UTF-8; save the file as UTF-8"
            for name in files
            if name.startswith("wide")
        ),
        "data.dataset=columns: its entry in dataset_info.json has columns a list, not a mapping of names",
        "data.dataset=name: its entry in dataset_info.json has file_name a number, not text",
    ):
        assert told in done.stderr, told
    assert done.stderr.count("wide.") == 6  # key and reason of each: one line, whatever the number of rows
    twice = cli("stage=sft", "model=tiny", "data.dataset='demo_instruct,demo_instruct'")
    assert twice.returncode == 2
    assert "names demo_instruct twice; name it once; to weight it" in twice.stderr
    for table, name in (('{"a": {"file_name": "two.json"}, "a": {}}', "a"),
                        ('{"a": {"file_name": "x", "file_name": "y"}}', "file_name")):  # fmt: skip
        (tmp_path / "dataset_info.json").write_text(table)
        repeated = cli("stage=sft", "model=tiny", "data.dataset_dir=.", "data.dataset=a")
        assert repeated.returncode == 2, repeated.stdout
        assert f"dataset_info.json has {name} twice, and only one would count" in repeated.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_dataset_is_converted_into_a_new_folder_or_the_answer_says_why_not(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD) + "\n")
    words = ["data", "convert", "a.jsonl", "--to", "openai", "--out"]
    made = cli(*words, "new/x.jsonl")
    assert made.returncode == 0 and (tmp_path / "new" / "x.jsonl").read_text().count("\n") == 1, made.stderr
    wrong = cli(*words, "/proc/x.jsonl")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert "--out=/proc/x.jsonl: cannot be written: " in wrong.stderr
