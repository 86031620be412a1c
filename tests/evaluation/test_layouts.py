"""The published layouts of the benchmarks give the same subjects and questions; what is wrong with a file is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.benchmarks import Row, ceval, cmmlu, mmlu, questions, table

from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Refused
from llmf_hydra.evaluation import hub_layout, layouts
from llmf_hydra.evaluation.categories import MMLU
from llmf_hydra.evaluation.checks import the_questions_are_there
from llmf_hydra.evaluation.questions import read_table
from llmf_hydra.evaluation.tasks import Task, task_of

SHOWN = {"astronomy": questions("astronomy", 5, 20), "law": questions("law", 5, 30)}
ASKED = {"astronomy": questions("astronomy", 3), "law": questions("law", 2, 10)}
LAYOUTS = {"mmlu": (mmlu, "test"), "ceval": (ceval, "val"), "cmmlu": (cmmlu, "test")}


def rows(questions) -> list[Row]:
    return [(one.text, *one.choices, one.answer) for one in questions]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_benchmark_is_read(name: str, packed: bool, tmp_path: Path) -> None:
    write, split = LAYOUTS[name]
    write(tmp_path, {"dev": SHOWN, split: ASKED}, packed=packed)
    task = Task(name, split)
    assert layouts.problem(str(tmp_path), task) is None
    for folder in (tmp_path, tmp_path / name):  # the benchmark's own folder serves too
        subjects = layouts.read(str(folder), task, examples=True)
        assert [(one.key, one.name, one.category) for one in subjects] == [
            ("astronomy", "astronomy", "STEM"),
            ("law", "the law", "Humanities"),
        ]
        for one in subjects:
            assert rows(one.questions) == ASKED[one.key] and rows(one.examples) == SHOWN[one.key]
    assert all(one.examples == () for one in layouts.read(str(tmp_path), task, examples=False))


def test_hendrycks_own_folder_needs_no_mapping(tmp_path: Path) -> None:
    """The archive of MMLU's authors: data/dev, data/test, and the categories of their paper."""
    asked = {"astronomy": questions("astronomy", 2), "world_religions": questions("religions", 1)}
    mmlu(tmp_path, {"dev": {}, "test": asked})
    (tmp_path / "mmlu" / "mapping.json").unlink()
    (tmp_path / "mmlu").rename(tmp_path / "hendrycks")
    for hidden in (tmp_path / "hendrycks").rglob("test"):
        (hidden / "._astronomy_test.csv").write_bytes(b"\0\xff")  # what macOS leaves beside a file
    subjects = layouts.read(str(tmp_path / "hendrycks"), task_of("mmlu_test"), examples=True)
    told = [(one.key, one.name, one.category) for one in subjects]
    assert told == [("astronomy", "astronomy", "STEM"), ("world_religions", "world religions", "Humanities")]
    assert len(MMLU) == 57


def test_words_that_look_like_missing_values_stay_as_they_are() -> None:
    (question,) = read_table('"Which is Python\'s null?",None,NA,"nan, or so",null,A\n', "x.csv")
    assert question.choices == ("None", "NA", "nan, or so", "null") and question.answer == "A"
    (short,) = read_table("question,A,B,answer\nWhich?,one,two,b\n", "x.csv")
    assert short.choices == ("one", "two") and short.answer == "B"


def test_the_alias_is_the_task() -> None:
    assert task_of("eval_validation") == task_of("ceval_validation") == Task("ceval", "val")


def gone(folder: Path) -> None:
    pass


def without_the_split(folder: Path) -> None:
    mmlu(folder, {"dev": SHOWN})


def with_a_broken_archive(folder: Path) -> None:
    (folder / "mmlu").mkdir()
    (folder / "mmlu" / "mmlu.zip").write_bytes(b"no archive")


def with_a_short_row(folder: Path) -> None:
    mmlu(folder, {"test": {"astronomy": [], "law": []}})
    (folder / "mmlu/data/test/law_test.csv").write_text("Which?,one,two\n", encoding="utf8")


def without_an_answer(folder: Path) -> None:
    text = table([("Which?", "1", "2", "3", "4", "")])
    mmlu(folder, {"test": {"astronomy": [], "law": []}})
    (folder / "mmlu/data/test/law_test.csv").write_text(text, encoding="utf8")


def with_another_mapping(folder: Path) -> None:
    mmlu(folder, {"test": ASKED})
    (folder / "mmlu/mapping.json").write_text(json.dumps({"law": "Humanities"}), encoding="utf8")


def with_a_subject_too_many(folder: Path) -> None:
    mmlu(folder, {"test": {"law": ASKED["law"]}})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (gone, "holds no tables of mmlu"),
        (without_the_split, "holds no split test (has dev)"),
        (with_a_broken_archive, "cannot be read"),
        (with_a_short_row, "law_test.csv row 1 has 3 columns, and 5 are needed"),
        (without_an_answer, "law_test.csv row 1 names no right answer among A, B, C, D"),
        (with_another_mapping, "is no mapping of subjects to a name and a category"),
        (with_a_subject_too_many, "mapping.json names astronomy, which has no table of the split test"),
    ],
)
def test_what_is_wrong_is_named(make: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(Refused, match=re.escape(told)) as refused:
        layouts.read(str(tmp_path), task_of("mmlu_test"), examples=False)
    assert str(refused.value).startswith("evaluation.task_dir")


def test_tables_are_read_before_a_model_is_loaded(tmp_path: Path) -> None:
    cfg = Config()
    cfg.evaluation.task, cfg.evaluation.task_dir, cfg.evaluation.n_shot = "mmlu_test", str(tmp_path), 5

    def said() -> str:
        return "\n".join(map(str, the_questions_are_there(cfg)))

    mmlu(tmp_path, {"dev": SHOWN, "test": ASKED})
    assert said() == ""
    cfg.evaluation.n_shot = 6
    assert said().startswith(
        "evaluation.n_shot=6: 2 subjects have fewer examples, the first of them astronomy"
    )
    table_of_law = tmp_path / "mmlu/data/test/law_test.csv"
    table_of_law.write_text("Which?,one,two\n", encoding="utf8")
    assert "law_test.csv row 1 has 3 columns" in said()
    for file in table_of_law.parent.iterdir():
        file.write_text("")
    assert said() == "evaluation.task_dir: its tables hold no questions; name another folder"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the datasets library, with a configuration a subject, as cais/mmlu has it."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    for split, tables in (("test", ASKED), ("dev", SHOWN)):
        for subject, of in tables.items():
            (folder / subject).mkdir(parents=True, exist_ok=True)
            lines = [
                {"question": row[0], "choices": list(row[1:5]), "answer": "ABCD".index(row[5])} for row in of
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / subject / f"{split}.jsonl").write_text(text, encoding="utf8")
    named = "".join(
        f"- config_name: {subject}\n  data_files:\n"
        f"  - {{split: test, path: {subject}/test.jsonl}}\n  - {{split: dev, path: {subject}/dev.jsonl}}\n"
        for subject in ASKED
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{named}---\n", encoding="utf8")
    return folder


def test_a_repository_of_the_datasets_library_is_read_in_its_modes(repository: Path, tmp_path: Path) -> None:
    """evaluation.download_mode: the prepared dataset is taken again, or prepared anew."""

    def read(mode: str) -> dict[str, float]:
        subjects = hub_layout.read(
            str(repository),
            task_of("mmlu_test"),
            examples=True,
            download_mode=mode,
            cache_dir=str(tmp_path / "cache"),
            token=None,
        )
        assert {one.key: rows(one.questions) for one in subjects} == ASKED
        assert {one.key: rows(one.examples) for one in subjects} == SHOWN
        assert [one.category for one in subjects] == ["STEM", None]  # MMLU has no subject called law
        return {str(file): file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*-test.arrow")}

    first = read("reuse_dataset_if_exists")
    assert first and read("reuse_dataset_if_exists") == first
    for mode in ("reuse_cache_if_exists", "force_redownload"):
        again = read(mode)
        assert again.keys() == first.keys() and all(again[file] > first[file] for file in first)
