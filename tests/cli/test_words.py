"""The command line's own words: each knows --help, and what was meant is pointed to."""

import json
from pathlib import Path

import pytest

from llmf_hydra.__main__ import main
from llmf_hydra.cli.commands import COMMANDS


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and everything that a command line printed, in this process."""
    try:
        code = main(list(words))
    except SystemExit as end:  # argparse prints help and leaves
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_each_word_and_no_word_knows_help(capsys: pytest.CaptureFixture[str]) -> None:
    for word in COMMANDS:
        for flag in ("--help", "-h"):
            code, text = said(capsys, word, flag)
            assert code == 0 and text.startswith(f"usage: llmf {word}"), word
    assert said(capsys) == said(capsys, "--help")
    assert said(capsys)[1].startswith("Fine-tune language models")


def test_help_is_about_what_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, start in (
        (["--help", "lora_rank"], "method.lora_rank:"),
        (["-h", "stage=dpo"], "stage=dpo: a choice of stage"),
        (["--help", "runs"], "usage: llmf runs"),
        (["method.lora_rank=8", "--help"], "method.lora_rank:"),
        (["--help", "rlhf"], "rlhf:"),
    ):
        code, text = said(capsys, *words)
        assert code == 0 and text.startswith(start), words


def test_what_was_meant_is_pointed_to(capsys: pytest.CaptureFixture[str]) -> None:
    for words, parts in (
        (["train", "x.yaml"], ["llmf import x.yaml"]),
        (["x.yaml"], ["llmf import x.yaml"]),
        (["train"], ["stage=sft"]),
        (["explian"], ["did you mean 'explain'"]),
        (["--stage", "dpo"], ["write stage=VALUE"]),
        (["--lora-rank", "8"], ["write method.lora_rank=VALUE"]),
        (["--confg-dir", "x"], ["did you mean '--config-dir'"]),
        (["runs", "--sort", "dat"], ["--sort=dat", "did you mean 'date'"]),
        (["runs", "nope"], ["FOLDER=nope: there is no such folder"]),
        (["runs", "/etc/passwd"], ["FOLDER=/etc/passwd: is a file"]),
        (["data", "valdate"], ["COMMAND=valdate", "list, validate, convert", "did you mean 'validate'"]),
        (["data", "preview"], ["COMMAND=preview", "list, validate, convert"]),
        (["data", "validate"], ["data validate: ", "name", "`llmf data validate --help`"]),
        (["data", "validate", "x", "--kind", "dialog"], ["--kind=dialog", "did you mean 'dialogue'"]),
        (["score", "/etc/passwd", "--model", "y"], ["--model=y: there is no such folder"]),
        (["score", "/etc/passwd", "--model", "/etc"], ["--model=/etc: holds no saved model"]),
        (["score", "x", "--model", "y", "--batch", "abc"], ["score: ", "'abc'", "`llmf score --help`"]),
        (["import"], ["import: ", "file", "`llmf import --help`"]),
        (["resume"], ["resume", "llmf resume --help"]),
        (["--cfg"], ["--cfg", "expected one argument"]),
        (["--package", "nope", "--cfg", "job"], ["--package=nope"]),
        (["--resolve"], ["add --cfg job"]),
        (["--config-dir", "/nope"], ["--config-dir=/nope", "no such folder"]),
    ):
        code, text = said(capsys, *words)
        assert code == 2 and all(part in text for part in parts), (words, text)


def made(folder: Path, number: int, **values: object) -> None:
    known = {"status": "done", "job": "train", "stage": "sft", "method": "lora", "model": "builtin:tiny",
             "created": f"2026-01-0{number}T10:00:00+00:00"}  # fmt: skip
    (folder / str(number)).mkdir(parents=True)
    (folder / str(number) / "manifest.json").write_text(json.dumps(known | values))


def test_runs_are_filtered_sorted_and_dated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs"
    made(folder, 1, objective={"name": "eval_loss", "value": 2.0})
    made(folder, 2, stage="dpo", objective={"name": "eval_loss", "value": 1.0})
    made(folder, 3, status="failed")
    made(folder, 4, job="check")

    def listed(*flags: str) -> list[str]:
        return [line.split()[-1] for line in said(capsys, "runs", *flags)[1].splitlines()[1:]]

    assert listed() == ["outputs/1", "outputs/2", "outputs/3"]
    assert listed("--all")[-1] == "outputs/4"
    assert listed("--stage", "dpo") == ["outputs/2"]
    assert listed("--status", "failed") == ["outputs/3"]
    assert listed("--last", "2") == ["outputs/2", "outputs/3"]
    assert listed("--sort", "objective") == ["outputs/2", "outputs/1", "outputs/3"]
    assert "2026-01-01" in said(capsys, "runs")[1]
    (tmp_path / "elsewhere").mkdir()
    assert "no runs below" in said(capsys, "runs", "elsewhere")[1]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert said(capsys, "runs") == (0, "no runs below outputs\n")
