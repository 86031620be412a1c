"""The page in a real browser: a run from its fields to its end, by someone who closes the tab meanwhile."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from support.browser import browser, needs_browser
from support.web_page import PASSWORD, Fields, served, wait_for

ROW = {
    "instruction": "<img src=x onerror=document.title='broken'><b>bold</b>",
    "output": "<script>alert(1)</script>",
}
STEPS = 100_000  # it is stopped
LONG = (
    f"training.max_steps={STEPS} training.logging_steps=2 training.eval_strategy=no training.save_strategy=no"
)


@needs_browser
@pytest.mark.timeout(600)
def test_a_run_from_the_fields_to_its_end(environment: dict[str, str], tmp_path: Path) -> None:
    rows = [ROW, *({"instruction": f"Say {n}.", "output": str(n)} for n in range(40))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with served(tmp_path, environment) as address, browser() as visitor:
        tab = visitor.tab(address)
        page = Fields(tab)
        page.log_in("wrong")
        tab.get_by_text("Incorrect").first.wait_for()
        assert tab.locator("#overrides").count() == 0
        page.log_in(PASSWORD)
        tab.wait_for_selector("#overrides textarea")
        page.shows("command", "python -m llmf_hydra stage=sft method=lora model=smollm2")

        page.choose("choose-model", "tiny")
        page.fill("overrides", "method.lora_rank=0 training.lerning_rate=1")
        told = page.shows("refused", "lora_rank")
        assert "method.lora_rank=0: must be >= 1" in told and "did you mean 'training.learning_rate'" in told
        page.fill("overrides", "data.dataset=/etc/passwd")
        page.shows("refused", "data.dataset=/etc/passwd: is a path outside the page's folder")
        page.fill("dataset", "../rows.jsonl")
        page.fill("overrides", LONG)
        page.shows("refused", "../rows.jsonl': leads out of its folder with ..")
        page.fill("dataset", "rows.jsonl")
        page.shows("refused", "nothing")
        command = page.shows("command", "data.dataset=rows.jsonl")
        assert (
            command == f"python -m llmf_hydra stage=sft method=lora model=tiny data.dataset=rows.jsonl {LONG}"
        )
        page.shows("config", "lora_rank: 8")

        page.click("preview")
        assert ROW["instruction"] in page.shows("output", "<b>bold</b>", 240)
        assert tab.title() == "llmf_hydra" and tab.locator("#output b, #output img").count() == 0

        page.click("start")
        page.shows("output", "started: python -m llmf_hydra")
        page.shows("state", "running", 240)
        points = wait_for(lambda: drawn(tab))
        wait_for(lambda: drawn(tab) > points)
        (out,) = [file.parent for file in tmp_path.glob("outputs/sft/*/log.jsonl")]
        name = str(out.relative_to(tmp_path))
        assert page.value("run").startswith(name)
        tab.close()

        tab = visitor.tab(address, width=390, height=844)
        page = Fields(tab)
        page.shows("state", f"{name}: running")
        wait_for(lambda: drawn(tab))
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("stop")
        page.shows("state", f"{name}: killed")
        assert "interrupted; go on with: llmf resume" in page.shows("log", "interrupted")
        assert visitor.asked_elsewhere == []


def drawn(tab, plot: str = "plot") -> int:
    """Length of the path of a curve that has a colour, which grows with its points."""
    path = tab.locator(f"#{plot} path[aria-roledescription='line mark'][stroke^='#']")
    return len(path.first.get_attribute("d") or "") if path.count() else 0


SHORT = "training.max_steps=6 data.max_samples=40 training.eval_strategy=no"


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_finished_runs_are_compared_chatted_with_and_exported(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with served(tmp_path, environment) as address, browser() as visitor:
        tab = visitor.tab(address)
        page = Fields(tab)
        page.log_in(PASSWORD)
        tab.wait_for_selector("#overrides textarea")
        page.choose("choose-model", "tiny")
        for seed in (1, 2):
            page.fill("overrides", f"{SHORT} training.seed={seed}")
            page.shows("command", f"training.seed={seed}")
            page.click("start")
            names = wait_for(lambda count=seed: len(found := finished_runs(tmp_path)) == count and found, 240)
            page.shows("state", f"{names[-1]}: done")

        page.open("Runs & sweeps")
        for name in names:
            page.choose("chosen", name, exact=False)
        page.click("differ")
        page.shows("difference", "training.seed: 1 -> 2")
        wait_for(lambda: drawn(tab, "compared"))

        page.open("Chat")
        page.choose("chat-run-left", names[0], exact=False)
        page.click("load-left")
        page.fill("chat-words-right", "model=tiny")
        page.click("load-right")
        page.shows("model-left", "ready", 240)
        page.shows("model-right", "ready", 240)
        assert len(api_servers(tmp_path)) == 2
        tab.get_by_role("button", name="System prompt and sampling").click()
        page.fill("max-tokens", "8")
        page.fill("message", "<b>Hello</b>")
        tab.locator("#message button").first.click()
        for side in ("left", "right"):
            tab.locator(f"#talk-{side} .bot").first.wait_for(timeout=60_000)
            wait_for(lambda side=side: tab.locator(f"#talk-{side} .bot").first.inner_text().strip())
            assert "<b>Hello</b>" in tab.locator(f"#talk-{side}").inner_text()

        page.open("Evaluate & export")
        page.choose("use-run", names[0], exact=False)
        page.fill("export-name", "../mine")
        page.shows("use-refused", "is no name of a folder")
        page.fill("export-name", "mine")
        page.shows("use-command", f"job=export from_run={names[0]} export.export_dir=exports/mine")
        page.shows("use-refused", "nothing")
        page.click("use-start")
        wait_for(lambda: list(tmp_path.glob("exports/mine/*.safetensors")), 240)
        tab.close()
        wait_for(lambda: not api_servers(tmp_path))
        assert visitor.asked_elsewhere == []


def finished_runs(cwd: Path) -> list[str]:
    """The runs whose folder says that they are done, the latest last."""
    manifests = cwd.glob("outputs/*/*/manifest.json")
    done = [file.parent for file in manifests if '"status": "done"' in file.read_text()]
    return sorted(str(folder.relative_to(cwd)) for folder in done)


def api_servers(cwd: Path) -> list[Path]:
    """The processes of `job=api` that were started in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"job=api" in words and b"llmf_hydra" in words and (process / "cwd").readlink() == cwd:
                found.append(process)
    return found
