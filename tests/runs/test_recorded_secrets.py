"""A thief reads all that runs and sweeps print and leave on disk, and finds no secret."""

import json
from pathlib import Path

import pytest
from support.command_line import Cli, only_run

from llmf_hydra.config import record
from llmf_hydra.config.schema import Config

TOKEN, OTHER, PASSWORD = "hf_ToKenSeCret01", "hf_OtherSeCret02", "PassSeCret03"
VARIABLES = {"WANDB_API_KEY": "4SeCret" * 6, "HF_TOKEN": "hf_EnvSeCret05", "API_KEY": "ApiSeCret06"}
URI = f"http://me:{PASSWORD}@127.0.0.1:9"
MARK = "SeCret"  # in each of them
SHORT = ["stage=sft", "model=tiny", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.save_strategy=no", "training.plot_loss=false", "data.max_samples=8"]  # fmt: skip


def stolen(folder: Path, *printed: str) -> list[str]:
    """Where a secret can be read."""
    files = [str(file) for file in folder.rglob("*") if file.is_file() and MARK.encode() in file.read_bytes()]
    return files + [text for text in printed if MARK in text]


@pytest.mark.slow
def test_a_run_with_trackers_records_no_secret_and_its_resume_says_what_it_misses(
    cli: Cli, tmp_path: Path
) -> None:
    words = [f"model.hf_hub_token={TOKEN}", f"tracking.mlflow_tracking_uri={URI}", "tracking=[wandb,mlflow]"]
    done = cli(*SHORT, *words, env={**VARIABLES, "WANDB_MODE": "offline", "NETRC": str(tmp_path / "netrc")})
    assert done.returncode == 0, done.stderr
    assert stolen(tmp_path, done.stdout, done.stderr) == []
    out = only_run(tmp_path, "sft")
    assert "mlflow_tracking_uri: http://me:***@127.0.0.1:9" in (out / "config.yaml").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert "model.hf_hub_token=***" in manifest["command"]

    (out / "manifest.json").write_text(json.dumps(manifest | {"status": "killed"}))
    again = cli(
        "resume", str(out), env={"WANDB_API_KEY": VARIABLES["WANDB_API_KEY"], "WANDB_MODE": "offline"}
    )
    assert again.returncode == 0, again.stderr
    (said,) = [line for line in again.stderr.splitlines() if "secrets are not recorded" in line]
    assert "model.hf_hub_token (set HF_TOKEN" in said and "wandb" not in said
    assert "tracking.mlflow_tracking_uri (set MLFLOW_TRACKING_URI" in said
    assert stolen(tmp_path, again.stdout, again.stderr) == []


def test_a_sweep_records_no_secret_and_varies_none(cli: Cli, tmp_path: Path) -> None:
    shared = ["-m", "job=check", "stage=sft", "model=tiny", "hydra.sweep.dir=study"]
    refused = cli(*shared, f"model.hf_hub_token={TOKEN},{OTHER}", env=VARIABLES)
    assert refused.returncode == 2 and "model.hf_hub_token: is a secret" in refused.stderr
    assert stolen(tmp_path, refused.stdout, refused.stderr) == [] and not (tmp_path / "study").exists()
    done = cli(*shared, f"model.hf_hub_token={TOKEN}", "training.seed=1", env=VARIABLES)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "study" / "sweep.json").exists() and (tmp_path / "study" / "multirun.yaml").exists()
    assert stolen(tmp_path, done.stdout, done.stderr) == []
    overrides = json.loads((tmp_path / "study" / "0" / "manifest.json").read_text())["sweep"]["overrides"]
    assert "model.hf_hub_token=***" in overrides


def test_a_refusal_repeats_no_secret(cli: Cli, tmp_path: Path) -> None:
    for words in (
        [f"model.ms_hub_token='a {TOKEN}'"],  # not built yet
        [f"model.hf_hub_token=[{TOKEN},{OTHER}]"],
        [f"model.hf_hub_token={TOKEN},{OTHER}"],  # several values in one run
        [f"+model.hf_hub_token={TOKEN}"],
        [f"model.hf_hub_token={{a:{TOKEN}"],
        [f"hf_hub_token={TOKEN}"],
        [f"rlhf.reward_model={URI}", "training.max_steps=x"],
    ):
        refused = cli("stage=sft", "model=tiny", *words, env=VARIABLES)
        assert refused.returncode == 2 and stolen(tmp_path, refused.stdout, refused.stderr) == [], (
            refused.stderr
        )


def test_a_printed_config_holds_no_secret(cli: Cli, tmp_path: Path) -> None:
    given = ["stage=sft", "model=tiny", f"model.hf_hub_token={TOKEN}", f"tracking.mlflow_tracking_uri={URI}"]
    for flags in (["--cfg", "job", "--resolve"], ["--cfg", "all"], ["--info", "all"], ["-m", "--cfg", "job"]):
        printed = cli(*given, *flags, env=VARIABLES)
        assert stolen(tmp_path, printed.stdout, printed.stderr) == [], flags


def test_a_worker_gets_back_what_its_file_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = Config()
    cfg.model.hf_hub_token, cfg.tracking.mlflow_tracking_uri = TOKEN, URI
    cfg.tracking.run_name, cfg.tracking.wandb_api_key = "***", None
    file = tmp_path / "config.yaml"
    file.write_text(record.dump(cfg), encoding="utf8")
    assert MARK not in file.read_text()
    assert len(record.missing(file)) == 2
    lacking = record.load(file)
    assert (
        lacking.model.hf_hub_token is None
        and lacking.tracking.mlflow_tracking_uri == "http://me:***@127.0.0.1:9"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")  # another store is not this run's
    assert record.load(file).tracking.mlflow_tracking_uri == "http://me:***@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    assert record.load(file).tracking.mlflow_tracking_uri == URI
    for name, value in record.hidden(cfg).items():
        monkeypatch.setenv(name, value)
    whole = record.load(file)
    assert (whole.model.hf_hub_token, whole.tracking.mlflow_tracking_uri) == (TOKEN, URI)
    assert whole.tracking.run_name == "***" and record.missing(file) == []
