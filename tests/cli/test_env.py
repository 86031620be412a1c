"""`llmf env` and `llmf compose`: what is told of a machine and of a command line, without a run."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from support.command_line import Cli

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123",
    "HF_TOKEN": "hf_abcdefghijklmnop",
    "GRADIO_PASSWORD": "correct horse battery",
    "LLMF_SECRET_SERVE_API_KEY": "handed over to a worker",
    "CUDA_SOME_CREDENTIALS": "of-someone-else",
    "HTTPS_PROXY": "http://me:my-own-password@proxy:3128",
}


def test_env_tells_versions_and_variables_and_no_secret(environment: dict[str, str], tmp_path: Path) -> None:
    code = "import sys; from llmf_hydra.__main__ import main; main(['env', '--json']); " + (
        "print([name for name in ('torch', 'transformers', 'gradio') if name in sys.modules], file=sys.stderr)"
    )
    env = {**environment, **SECRETS, "LLAMAFACTORY_VERBOSITY": "DEBUG", "UNRELATED": "unrelated text"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n" and list(tmp_path.iterdir()) == []
    told = json.loads(done.stdout)
    for name in ("torch", "transformers", "hydra-core"):
        assert told["packages"][name] == importlib.metadata.version(name)
    assert told["variables"]["LLAMAFACTORY_VERBOSITY"] == "DEBUG" and "UNRELATED" not in told["variables"]
    assert told["variables"]["HTTPS_PROXY"] == "http://me:***@proxy:3128"
    assert all(told["variables"][name] == "***" for name in SECRETS if name != "HTTPS_PROXY")
    assert (
        not any(value in done.stdout for value in SECRETS.values()) and "my-own-password" not in done.stdout
    )
    assert told["machine"]["python"].startswith(sys.version.split()[0]) and told["machine"]["gpu"]


def test_env_for_people(cli: Cli) -> None:
    done = cli("env")
    assert (
        done.returncode == 0
        and "\npackages\n" in done.stdout
        and f"  {sys.executable}" not in done.stdout.split("\n")
    )
    assert cli("env", "--jsn").returncode == 2


def test_compose_tells_the_config_and_what_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("compose", "stage=dpo", "model=tiny", "model.hf_hub_token=hf_abcdefghijklmnop")
    assert done.returncode == 0 and "  name: dpo" in done.stdout and "hf_hub_token: '***'" in done.stdout
    wrong = ("stage=dpo", "model=tiny", "training.warmup_steps=5", "training.warmup_ratio=0.1")
    told = cli("compose", *wrong, "--json")
    content = json.loads(told.stdout)
    assert told.returncode == 2 and "warmup_steps: 5" in content["config"] and len(content["problems"]) == 1
    nothing = cli("compose", "--json", "method.lora_rnk=4")
    content = json.loads(nothing.stdout)
    assert nothing.returncode == 2 and content["config"] is None and "lora_rank" in content["problems"][0]
    sweep = cli("compose", "-m", "stage=sft", "model=tiny", "method.lora_rank=4,8")
    assert sweep.returncode == 0 and "lora_rank: 8" in sweep.stdout
    assert "several values" in cli("compose", "method.lora_rank=4,8").stderr
    assert list(tmp_path.iterdir()) == []
