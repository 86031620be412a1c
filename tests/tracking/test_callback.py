"""The bridge from a real trainer: what reaches the log, the screen and the bar."""

import io
import os
import pty
import re
import termios

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from llmf_hydra.tracking.callback import TrackerCallback, progress_line, watch
from llmf_hydra.tracking.files import read_log
from llmf_hydra.tracking.open import open_trackers


class Line(torch.nn.Module):
    """y = a x, learned from single numbers."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.a * x - labels) ** 2).mean(), "logits": self.a * x}


@pytest.fixture
def trainer(tmp_path) -> Trainer:
    rows = [{"x": float(n % 5), "labels": 2.0 * (n % 5)} for n in range(32)]
    args = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=6,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=6,
        save_strategy="no",
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model=Line(), args=args, train_dataset=rows, eval_dataset=rows)


def test_a_trainers_metrics_reach_the_log_and_the_screen(trainer, make_tracking, make_info, capsys):
    info = make_info()
    with open_trackers(make_tracking(), info) as trackers:
        watch(trainer, trackers)
        trainer.train()

    records = read_log(info.out / "log.jsonl")
    history = trainer.state.log_history
    assert [record["step"] for record in records] == [2, 4, 6, 6, 6]
    assert [{key: value for key, value in record.items() if key != "time"} for record in records] == history
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 5
    assert re.fullmatch(
        rf"step 2/6  loss {history[0]['loss']:.4f}  lr \d\.\de-\d\d  \d+\.\d+ s/step", lines[0]
    )
    assert lines[3] == f"step 6/6  eval_loss {history[3]['eval_loss']:.4f}"
    assert lines[4] == f"step 6/6  train_loss {history[4]['train_loss']:.4f}"
    assert said.err == ""


def drive(terminal: io.TextIOBase, make_tracking, make_info) -> None:
    """Two steps of a training that was resumed at its fourth of ten steps."""
    args, control = TrainingArguments(output_dir="unused", report_to=[]), TrainerControl()
    with open_trackers(make_tracking(), make_info()) as trackers:
        callback = TrackerCallback(trackers, terminal)
        state = TrainerState(global_step=4, max_steps=10)
        callback.on_train_begin(args, state, control)
        state.global_step = 5
        callback.on_step_end(args, state, control)
        callback.on_log(args, state, control, logs={"loss": 0.5})
        callback.on_train_end(args, state, control)


def test_a_terminal_gets_a_bar(make_tracking, make_info):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as terminal:
        drive(terminal, make_tracking, make_info)
        terminal.flush()
        seen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "4/10" in seen
    assert "5/10" in seen


def test_what_is_no_terminal_gets_none(make_tracking, make_info, capsys):
    file = io.StringIO()
    drive(file, make_tracking, make_info)
    assert file.getvalue() == ""
    assert capsys.readouterr().out.startswith("step 5/10  loss 0.5000  ")


def test_only_the_main_process_reports(make_tracking, make_info, capsys):
    info = make_info()
    state = TrainerState(global_step=1, max_steps=2, is_world_process_zero=False)
    with open_trackers(make_tracking(), info) as trackers:
        callback = TrackerCallback(trackers)
        callback.on_log(
            TrainingArguments(output_dir="unused", report_to=[]), state, TrainerControl(), logs={"loss": 1.0}
        )
    assert read_log(info.out / "log.jsonl") == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("metrics", "pace", "line"),
    [
        (
            {
                "learning_rate": 1e-4,
                "loss": 0.69314,
                "rewards/accuracies": 0.5,
                "grad_norm": 3.0,
                "epoch": 0.1,
            },
            3.14,
            "step 10/60  loss 0.6931  rewards/accuracies 0.50  lr 1.0e-04  3.1 s/step",
        ),
        ({"loss": 1.5}, 0.042, "step 10/60  loss 1.5000  0.04 s/step"),
        (
            {"eval_runtime": 3.0, "eval_loss": 0.4, "eval_rewards/accuracies": 0.75},
            None,
            "step 10/60  eval_loss 0.4000  eval_rewards/accuracies 0.75",
        ),
        ({"odd": 12345.678, "other": 0.5}, None, "step 10/60  odd 1.235e+04  other 0.5"),
    ],
)
def test_a_line_reads_well(metrics, pace, line):
    assert progress_line(metrics, 10, 60, pace) == line
