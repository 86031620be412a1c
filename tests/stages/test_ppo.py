"""PPO from the real command line: it earns what a service pays, it takes what `stage=rm` saves, it refuses."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from support.finished_runs import Finished
from support.ppo_runs import SHORT, Cli, log_of, save_full, served, share_of, share_of_vowels
from support.stage_runs import composed
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from llmf_hydra import refusals
from llmf_hydra.config.conf_files import shipped_values
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.scorer import load_saved_scorer
from llmf_hydra.models.value_head import FILE

LETTERS = "aeiourst"
THINGS = """tea rain bread stone river music chess snow salt honey wolf lemon paper glass iron gold sand milk rice corn
wind fire ice moon sun star tree leaf root seed rose lily oak pine fox bear deer owl crow swan"""
MOST = 25.0  # what the service pays for an answer of nothing but those


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


def peaked(folder: Path) -> None:
    """A tiny model that has preferences, as a trained one has: LoRA can move it further than a uniform one."""
    config = AutoModelForCausalLM.from_pretrained(tiny.ready()).config
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny.ready()).save_pretrained(folder)


@pytest.mark.slow
def test_it_learns_what_a_service_pays_for(cli: Cli, tmp_path: Path) -> None:
    """The reward is the share of some letters: at least half of what is to be gained, with a KL near its target."""
    peaked(tmp_path / "start")
    with served(lambda body: share_of(LETTERS, body, MOST)) as service:
        done = cli("stage=ppo", "model=path", "model.model_name_or_path=./start", "model.compute_dtype=float32",
                   "model.disable_gradient_checkpointing=true", "rlhf.reward_model_type=api",
                   f"rlhf.reward_model={service.url}", "rlhf.ppo_target=10", "generation.max_new_tokens=3",
                   "training.per_device_train_batch_size=32", "training.learning_rate=0.004",
                   "training.lr_scheduler_type=constant", "training.warmup_ratio=0", "training.max_steps=80",
                   "training.logging_steps=20", "training.eval_strategy=no", "data.val_size=0",
                   "training.save_strategy=no", "training.plot_loss=false", "training.seed=1", "hydra.run.dir=run",
                   env={"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    buffers = [line for line in log_of(tmp_path / "run") if "objective/scores" in line]
    paid = [mean(share_of(LETTERS, request)[1]["scores"]) * MOST for request in service.requests]
    assert len(paid) == 20  # one request a buffer of four passes
    assert buffers[-1]["objective/scores"] == pytest.approx(mean(paid[-5:]), abs=1e-3)
    assert mean(paid[-5:]) - paid[0] >= 0.5 * (MOST - paid[0])
    assert 5 < buffers[-1]["objective/kl"] < 20
    assert buffers[-1]["objective/entropy"] < buffers[0]["objective/entropy"]
    assert "objective/rlhf_reward" in done.stdout
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 40


def share_of_a(text: str) -> float:
    """The share of a text's words that begin with a."""
    words = re.findall("[A-Za-z]+", text)
    return sum(word[0] == "a" for word in words) / max(1, len(words))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_smollm2_learns_what_a_service_pays_for(cli: Cli, tmp_path: Path) -> None:
    """The same on a model that knows English. Short prompts without a template keep it to a few minutes."""
    rows = [{"instruction": f"I like {thing}", "output": "-"} for thing in THINGS.split()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paid: list[float] = []  # the mean reward of each buffer, of 1 at most

    def score(body: dict[str, Any]) -> tuple[int, Any]:
        shares = [share_of_a(sample["response"]) for sample in body["samples"]]
        paid.append(mean(shares))
        return 200, {"scores": [10 * share for share in shares]}

    with served(score) as service:
        done = cli("stage=ppo", "data.dataset=./rows.jsonl", "data.template=empty", "data.val_size=0",
                   "rlhf.reward_model_type=api", f"rlhf.reward_model={service.url}", "rlhf.ppo_target=6",
                   "generation.max_new_tokens=4", "training.per_device_train_batch_size=32",
                   "training.learning_rate=0.001", "training.lr_scheduler_type=constant",
                   "training.warmup_ratio=0", "training.max_steps=60", "training.logging_steps=4",
                   "training.eval_strategy=no", "training.save_strategy=no", "training.plot_loss=false",
                   "hydra.run.dir=run", timeout=3000)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(paid) == 15
    assert paid[-1] - paid[0] >= 0.5 * (1 - paid[0])
    divergences = [line["objective/kl"] for line in log_of(tmp_path / "run") if "objective/kl" in line]
    # Where half of the gain is reached it is within a factor of two of the target, 6: measured 5.7, 6.7 and 5.9 with
    # training.seed 42, 1 and 2 on one thread. Later it grows with the reward, to 15.3, 13.4 and 12.6: the coefficient
    # of Ziegler et al. moves by 2 % a buffer at most, here between 0.17 and 0.2. Other threads give other digits.
    half = next(at for at, reward in enumerate(paid) if reward - paid[0] >= 0.5 * (1 - paid[0]))
    assert 3 < divergences[half] < 12 and divergences[-1] < 20


def test_a_reward_adapter_of_stage_rm_feeds_it(finished: Finished, cli: Cli, tmp_path: Path) -> None:
    """Trained, saved, taken up on the shared base; the policy is saved as plain PEFT loads it."""
    reward = finished("rm").out / "final"
    done = cli("stage=ppo", "model=tiny", *SHORT, f"rlhf.reward_model={reward}", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    final = tmp_path / "run" / "final"
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", FILE} <= {
        f.name for f in final.iterdir()
    }
    assert not (final / "reward").exists()
    from peft import AutoPeftModelForCausalLM

    assert AutoPeftModelForCausalLM.from_pretrained(final).active_adapters == ["default"]


def test_a_reward_model_of_its_own_feeds_a_full_run(cli: Cli, tmp_path: Path) -> None:
    save_full(tmp_path / "reward")
    done = cli("stage=ppo", "method=full", "model=tiny", *SHORT, "rlhf.reward_model=./reward",
               "rlhf.reward_model_type=full", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final", output_loading_info=True)
    assert not saved[1]["missing_keys"] and not saved[1]["unexpected_keys"]


@pytest.mark.parametrize("kind", ["full", "api"])
def test_what_stage_rm_trains_feeds_the_other_types_too(
    kind: str, finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    rm = finished("rm", *(["method=full"] if kind == "full" else [])).out / "final"
    model, tokenizer = load_saved_scorer(rm)
    given: list[float] = []

    def score(body: dict[str, Any]) -> tuple[int, Any]:
        texts = tokenizer(body["messages"], padding=True, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            scores = model(**texts, use_cache=False).logits.squeeze(-1).tolist()
        given.extend(scores)
        return 200, {"scores": scores}

    with served(score) as service:
        reward = rm if kind == "full" else service.url
        done = cli("stage=ppo", "model=tiny", *SHORT, f"rlhf.reward_model={reward}",
                   f"rlhf.reward_model_type={kind}", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged = [line["objective/scores"] for line in log_of(tmp_path / "run") if "objective/scores" in line]
    assert len(set(logged)) > 1
    if kind == "api":
        assert mean(given) == pytest.approx(mean(logged), abs=1e-4)


@pytest.mark.slow
def test_a_service_that_is_not_there_ends_the_run_in_words(cli: Cli, tmp_path: Path) -> None:
    done = cli("stage=ppo", "model=tiny", *SHORT, "rlhf.reward_model_type=api",
               "rlhf.reward_model=http://127.0.0.1:9/", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "http://127.0.0.1:9/" in done.stderr and "llmf resume" in done.stderr


ONE_PROMPT = "What do owls eat?"


@pytest.fixture
def one_prompt(tmp_path: Path) -> list[str]:
    """The words of a run on a single prompt, scored by a service: buffers of 2 x 4 answers of eight tokens."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"instruction": ONE_PROMPT, "output": "-"}) + "\n")
    return ["stage=ppo", "model=tiny", *SHORT, "data.dataset=./one.jsonl", "rlhf.reward_model_type=api",
            "rlhf.ppo_buffer_size=2", "rlhf.ppo_epochs=1", "training.per_device_train_batch_size=4",
            "training.gradient_accumulation_steps=1", "generation.max_new_tokens=8", "hydra.run.dir=run"]  # fmt: skip


def answers(body: dict[str, Any]) -> list[str]:
    """The responses of a request."""
    return [sample["response"] for sample in body["samples"]]


BAD_SCORES = {"NaN": b"NaN", "a digit string": b'"1"', "a bool": b"true"}


@pytest.mark.parametrize(
    "kind", ["NaN", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(BAD_SCORES)[1:])]
)
def test_a_bad_score_ends_the_run_and_no_buffer_repeats_another(
    kind: str, one_prompt: list[str], cli: Cli, tmp_path: Path
) -> None:
    """Two good buffers, then one bad score: the error names the URL, the score and the prompt."""
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(body)
        scores = [b"0.5"] * len(body["samples"])
        if sum(map(len, map(answers, asked))) > 16:
            scores[1] = BAD_SCORES[kind]
        return 200, b'{"scores": [' + b", ".join(scores) + b"]}"

    with served(answer) as service:
        done = cli(*one_prompt, f"rlhf.reward_model={service.url}", "training.max_steps=8")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"rlhf.reward_model={service.url}: gave the score {BAD_SCORES[kind].decode()}" in done.stderr
    assert ONE_PROMPT in done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf8"))
    assert manifest["status"] == "failed" and service.url in manifest["reason"]
    assert len([line for line in log_of(tmp_path / "run") if "loss" in line]) == 4
    said = [response for body in asked for response in answers(body)]
    assert len(set(said[:16])) == 16  # two buffers of eight


@pytest.mark.slow
def test_two_processes_answer_with_random_numbers_of_their_own(
    one_prompt: list[str], cli: Cli, tmp_path: Path
) -> None:
    """Forty answers to one prompt by an untrained model are forty different ones."""
    with served(share_of_vowels) as service:
        done = cli(*one_prompt, f"rlhf.reward_model={service.url}", "training.per_device_train_batch_size=10",
                   "training.max_steps=1", "launch.nproc_per_node=2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [answer for body in service.requests for answer in answers(body)]
    assert len(said) == 40 == len(set(said))


def written(folder: Path, name: str, content: dict) -> Path:
    folder.mkdir()
    (folder / name).write_text(json.dumps(content))
    return folder


FULL = "rlhf.reward_model_type=full"
WRONG: list[tuple[list[str], list[str]]] = [
    (["rlhf.reward_model=./none"], ["rlhf.reward_model=./none", "no such folder"]),
    (["rlhf.reward_model=other"], ["adapter of /models/llama", "builtin:tiny is another model"]),
    (["rlhf.reward_model=policy"], ["adapter for CAUSAL_LM"]),
    (["rlhf.reward_model=model"], ["no adapter_config.json", "reward_model_type=full"]),
    (["rlhf.reward_model=model", FULL], ["LlamaForCausalLM", "gives no score"]),
    (["rlhf.reward_model=other", FULL], ["no config.json", "reward_model_type=lora"]),
    (["rlhf.reward_model=reward", "rlhf.reward_model_type=api"], ["is no URL", "http://"]),
    (["rlhf.reward_model=http://x/"], ["contradicts rlhf.reward_model_type=lora", "reward_model_type=api"]),
    (["rlhf.reward_model=other", FULL, "rlhf.reward_model_quantization_bit=5"], ["must be 4 or 8"]),
    (["rlhf.reward_model=other", "rlhf.reward_model_adapters=x"], ["reward_model_adapters=x", "no effect"]),
    (["rlhf.reward_model=other", "generation.max_length=9"], ["generation.max_length=9", "no effect"]),
    (["rlhf.reward_model=other", "data.streaming=true"], ["data.streaming=true"]),
]


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_uses_are_found_before_anything_loads(
    words: list[str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = {"base_model_name_or_path": "/models/llama", "task_type": "SEQ_CLS"}
    written(tmp_path / "other", "adapter_config.json", adapter)
    of_policy = {"base_model_name_or_path": "builtin:tiny", "task_type": "CAUSAL_LM"}
    written(tmp_path / "policy", "adapter_config.json", of_policy)
    written(tmp_path / "model", "config.json", {"architectures": ["LlamaForCausalLM"]})
    cfg = composed("stage=ppo", *words)
    shipped = shipped_values({"generation": "ppo", "demo": "ppo", "training": "ppo", "model": "tiny"})
    found = "\n".join(map(str, refusals.problems(cfg, shipped)))
    assert all(part in found for part in told), found


def test_a_run_without_a_reward_is_refused(cli: Cli, tmp_path: Path) -> None:
    refused = cli("stage=ppo", "model=tiny")
    assert refused.returncode == 2 and list(tmp_path.iterdir()) == []
    assert "rlhf.reward_model=null" in refused.stderr and "stage=rm method=lora" in refused.stderr


def test_a_package_that_is_missing_is_told_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmf_hydra.config.schema import Config
    from llmf_hydra.training.rewards import checks as needs

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cfg = Config()
    cfg.stage.name, cfg.rlhf.reward_model_type, cfg.rlhf.reward_model = "ppo", "full", str(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert list(needs.the_reward_is_what_its_type_needs(cfg)) == []
    cfg.rlhf.reward_model_quantization_bit = 4
    (problem,) = needs.the_reward_is_what_its_type_needs(cfg)
    assert "bitsandbytes" in str(problem) and "pip install" in str(problem)
