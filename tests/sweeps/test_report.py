"""The page of a study, opened in a real browser: it needs no network, shows its plots, and fits a telephone."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from support.command_line import Cli
from support.finished_study import FinishedStudy

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
PLOTS = 4  # history, parallel coordinates, two learning curves: beside the seed one parameter varies
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const of = (selector) => [...document.querySelectorAll(selector)];
  const told = {inner: innerWidth, scroll: document.documentElement.scrollWidth,
    drawn: of(".js-plotly-plot").filter(plot => plot.querySelector("svg")).length,
    wide: of(".js-plotly-plot").filter(plot => plot.getBoundingClientRect().right > innerWidth).length,
    dashed: of(".scatterlayer path.js-line").filter(line => line.style.strokeDasharray.includes("px,")
      || line.style.strokeDasharray.includes("px, ")).length};
  (parent === window ? window : parent).postMessage(told, "*");
}, 1500))</script>"""
LISTEN = """<!doctype html><body><script>addEventListener("message", (event) => {
  document.body.dataset.told = Object.entries(event.data).map(([key, value]) => key + "=" + value).join(" ");
})</script>"""


@pytest.fixture(scope="module")
def page(study: FinishedStudy, environment: dict[str, str]) -> str:
    """The page as the command writes it, in the study's folder."""
    import sys

    command = [sys.executable, "-m", "llmf_hydra", "sweep", "report", str(study.folder), "--open", "no"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (study.folder / "report.html").read_text(encoding="utf8")


class Texts(HTMLParser):
    """The page as a reader has it: its texts, its links, and what it would load."""

    def __init__(self, page: str):
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [given["href"] or ""] if tag == "a" else []
        self.loads += [tag] if "src" in given or tag in ("link", "img", "iframe") else []

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)


def seen_at(width: int, page: str, folder: Path) -> dict[str, int]:
    """What the page says of itself in a frame of this width (a browser's own window is at least 500 wide)."""
    assert BROWSER is not None
    (folder / "probed.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf8")
    frame = f'<iframe src="probed.html" style="border:0;width:{width}px;height:900px"></iframe>'
    (folder / "frame.html").write_text(LISTEN + frame, encoding="utf8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    flags = ["--virtual-time-budget=15000", f"--window-size={max(width, 500)},900", "--dump-dom"]
    done = subprocess.run(
        [*command, *flags, (folder / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r'data-told="([^"]+)"', done.stdout)
    assert told is not None, done.stdout[-500:] + done.stderr[-2000:]
    return {key: int(value) for key, value in (word.split("=") for word in told[1].split())}


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_every_plot_and_nothing_is_too_wide(page: str, tmp_path: Path, width: int) -> None:
    told = seen_at(width, page, tmp_path)
    assert told["inner"] == width and told["scroll"] <= width and told["wide"] == 0
    assert told["drawn"] == PLOTS
    assert told["dashed"] >= 1  # the learning curve of the pruned trial


def test_the_page_is_whole_and_says_all_that_there_is(page: str, study: FinishedStudy) -> None:
    read = Texts(page)
    assert read.loads == [] and "url(" not in page.split("<body>")[0]
    assert page.count('class="plot"') == PLOTS
    text = " ".join(read.texts)
    best = study.trials[0]
    assert f"llmf-hydra {' '.join(best['overrides'])}" in text
    assert "5 done" in text and "1 pruned" in text and "pruned at step 2" in text
    assert "training.seed as repeats" in text and "over 2 seeds, p = " in text
    folders = {(study.folder / unquote(link)).resolve() for link in read.links}
    assert folders == {study.folder / str(number) for number in range(6)} and all(map(Path.is_dir, folders))


def test_a_users_text_is_never_markup(page: str) -> None:
    read = Texts(page)
    assert "i" not in read.tags and "my <i>study" in " ".join(read.texts)
    data = page.split('type="application/json">')[1].split("</script>")[0]
    assert "<" not in data


def test_the_page_goes_where_it_is_asked_to(cli: Cli, study: FinishedStudy, tmp_path: Path) -> None:
    done = cli("sweep", "report", str(study.folder), "--out", "page.html", "--open", "no")
    assert done.returncode == 0 and done.stdout == "page.html\n"
    links = Texts((tmp_path / "page.html").read_text(encoding="utf8")).links
    assert all((tmp_path / unquote(link)).is_dir() for link in links)
    refused = cli("sweep", "report", str(study.folder), "--out", "nowhere/page.html")
    assert refused.returncode == 2 and "--out=" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_page_of_three_objectives_and_two_seeds(cli: Cli, tmp_path: Path) -> None:
    words = ["stage=sft", "model=tiny", "data.max_samples=16", "data.val_size=4", "training.max_steps=2",
             "training.eval_strategy=steps", "training.save_strategy=no", "training.plot_loss=false",
             "training.compute_accuracy=true", "method.lora_rank=4,8", "training.learning_rate=0.1,0.01",
             "training.seed=1,2", "hydra.sweep.dir=study"]  # fmt: skip
    words.append(
        "hydra.sweeper.objectives={eval_loss: minimize, eval_accuracy: maximize, peak_memory_mb: minimize}"
    )
    made = cli("-m", *words)
    assert made.returncode == 0, made.stdout + made.stderr
    assert cli("sweep", "report", "study", "--open", "no").returncode == 0
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf8")
    found = re.search(r'<script id="figures" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    drawn: dict[str, Any] = json.loads(found[1])
    axes = [
        str(figure["layout"].get(side, {}).get("title"))
        for figure in drawn.values()
        for side in ("xaxis", "yaxis")
    ]
    assert not any("training.seed" in axis for axis in axes)
    assert any("method.lora_rank" in axis for axis in axes)  # of the contour
    bars = [trace for figure in drawn.values() for trace in figure["data"] if trace["type"] == "bar"]
    assert len(bars) in (2, 3) and all(  # the accuracy of a model that knows nothing may be 0 everywhere
        set(bar["y"]) == {"method.lora_rank", "training.learning_rate"} for bar in bars
    )
    front = set(re.findall(r"\d+", made.stdout.split("on the Pareto front: trials ")[1].splitlines()[0]))
    table = page.split("<h2>All trials</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr( class=\"best\")?><td>(\d+)</td>", table)
    assert {number for mark, number in rows if mark} == front and len(rows) == 8
    assert {number for _, number in rows[: len(front)]} == front
    if BROWSER is not None:
        assert seen_at(1280, page, tmp_path)["drawn"] == len(drawn)
