"""The first day: the commands of the README and of every page run, in the order in which a reader meets them.

All pages share one folder, so that each page's commands run after every other page's. Models are trained at toy size;
what a page calls RUN, DIR or FILE is filled in; each command runs once. The tutorial is walked apart, on the command
line and in Python.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from command import Niblick
from tiny import TINY, score_in_process

from niblick.artifact.foreign.names import to_published
from niblick.config.run_config import override
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset
from niblick.run import exports, pipeline

ROOT = Path(__file__).parents[1]
TUTORIAL = "docs/tutorial.md"

TOY = [each for each in TINY if not each.startswith(("score.seq_len", "schedule"))]
TOY += ["score.seq_len=128", "train.val_every=0", "schedule.steps=3", "schedule.max_seconds=null"]

ELSEWHERE = {
    "niblick quickstart": "tests/test_quickstart.py",
    "niblick remote": "needs another machine; tests/remote",
    "niblick monitor": "serves until Ctrl-C; tests/monitor",
    "niblick watch latest": "follows until Ctrl-C; tests/monitor",
    "niblick watch": "follows until Ctrl-C; tests/monitor",
    "niblick runs --watch": "follows until Ctrl-C; tests/ledger",
    "niblick import hnet": "needs the checkpoint of the paper's authors; tests/run/test_paper_import.py",
    "niblick size PRESET": "a minute for each width that it tries; tests/run/test_exports.py",
    "niblick sweep": "processes of their own; tests/sweeps",
    "niblick transfer": "two sweeps; tests/sweeps",
    "niblick study": "hours; tests/studies",
    "niblick submit": "minutes of packing scripts; tests/submission",
    "niblick audit latest": "the tutorial's, below; tests/audit",
    "niblick audit RUN": "the tutorial's, below; tests/audit",
    "niblick audit records/mine": "what submit would write; tests/submission",
    "niblick audit submissions/mine": "a folder of somebody; tests/submission",
    "niblick audit my_model:f": "a function of the reader's; tests/audit",
    "niblick train hnet-byte260 --data data/web --log": "other loggers; tests/run/test_loggers.py",
    "niblick train --resume": "a run that was stopped; tests/train",
    "niblick train hnet-byte260 --data DIR --devices": "processes of their own; tests/train",
    "niblick train PRESET … score.sidecar.name=mixture": "compiles; tests/run/test_text_export.py",
    "niblick export RUN text=": "compiles; tests/run/test_text_export.py",
    "niblick eval RUN score.sidecar.name=mixture": "compiles; tests/score",
    "niblick data prepare --source FILE.jsonl --val-docs 220 --tokenizer sp:8192": "more text than is here",
    "niblick data prepare --source challenge:sp1024": "needs the hub; tests/data/test_download.py",
    "niblick train baseline-sp1024 --data data/sp1024": "needs the hub's shards; tests/parity",
    "niblick data prepare --source hf:": "needs the hub; tests/data/test_hub_text.py",
    "niblick push latest hf:": "needs the hub; tests/submission/test_pushing.py",
    "niblick generate hf:": "needs the hub; tests/submission/test_pushing.py",
    "niblick eval hf:": "needs the hub; tests/submission/test_pushing.py",
    "niblick --": "asks the shell",
}
"""Commands that are not walked here, by how they begin, and where they are tested."""

FILLED = {
    "FILE.jsonl": "docs.jsonl",
    "DIR": "data/pydocs",
    "PRESET": "hnet-small",
    "RUN": "latest",
    "RUN|ARTIFACT": "latest",
    "PRESET|my_recipe.py": "hnet-small",
    "train.average=A": "train.average=ema",
}
"""What stands for a reader's own choice."""


def reading_order() -> list[str]:
    """The README, then the pages in the order of its table, then those it does not name."""
    named = re.findall(r"^\| \[(docs/\w+\.md)\]", (ROOT / "README.md").read_text("utf-8"), re.M)
    others = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    return ["README.md", *dict.fromkeys([*named, *others])]


def commands(page: str) -> list[str]:
    """The commands of a page: of its indented blocks, and of its blocks that are called `console`."""
    text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    return lines + re.findall(r"^    (niblick (?!is|needs).*)$", plain, flags=re.M)


def words(line: str) -> list[str]:
    """The words of a command, without its comment and what is optional, with choices filled in."""
    line = re.sub(r"\s+#.*|\s[>|]\s.*|\[[^\]'\"]*\]|…", "", re.sub(r"model\.levels=\[\]", "model.levels=NONE", line))
    return [FILLED.get(word, word).replace("NONE", "[]") for word in shlex.split(line)]


KEPT = ("model.levels", "model.vocab_size", "model.main.layout", "train.average", "seed=", "data.seed")
KEPT += ("export.", "score.")


def walked(arguments: list[str]) -> list[str]:
    """A command at toy size: what a page sets of sizes gives way, what it sets of parts stays."""
    if arguments == ["compare", "latest", "latest"]:
        return ["compare", "bytes-1", "words-1"]
    if arguments[:4] == ["data", "prepare", "--source", "pydocs"]:
        return [*arguments, "--max-docs", "60"]
    if arguments[0] == "import":
        return [*arguments, *TINY[:4]]
    if arguments[0] in ("fit", "sensitivity"):
        return [*arguments, "--tokens", "1024"]
    if arguments[0] != "train":
        return arguments
    mine = [word for word in arguments if "=" not in word or " " in word or word.startswith(KEPT)]
    if any(word.startswith("entropy.artifact=") for word in arguments):
        mine.append(f"entropy.artifact={newest_artifact()}")
    mine += [] if "--data" in mine else ["--data", "data/pydocs"]
    given = {word.partition("=")[0] for word in mine}
    return mine + [word for word in TOY if word.partition("=")[0] not in given]


def newest_artifact() -> Path:
    """Of the run before: a page's small model is the run of its command before."""
    return max(Path("runs").glob("*/artifacts/*/artifact.nib"), key=lambda path: path.stat().st_mtime)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder, in which scores are made without a process of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "official_score", score_in_process)
    monkeypatch.setattr(exports, "official_score", score_in_process)
    return tmp_path


def readers_files(here: Path) -> None:
    """What pages suppose that a reader has: texts, a log, a script, a checkpoint of a published script."""
    text = "\n\n".join(topics.values())
    documents = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    (here / "book.txt").write_text(text[:50_000])
    (here / "notes.txt").write_text(documents[7])
    (here / "docs.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    (here / "train.log").write_text("step:1/1 val_loss:2.0 val_bpb:1.2 train_time:10ms step_avg:10.0ms\n")
    (here / "train_gpt.py").write_text("loss = model(x, y)\n")
    recipes = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text("utf-8"), flags=re.S)
    (here / "my_recipe.py").write_text(next(code for code in recipes if "register_router" in code))
    state = to_published(LM(override(get_preset("hnet-byte260"), TINY[:4]).model).state_dict())
    buffer = io.BytesIO()
    torch.save({"quantized": {}, "scales": {}, "dtypes": {}, "passthrough": state}, buffer)
    (here / "final_model.int8.ptz").write_bytes(zlib.compress(buffer.getvalue()))


NAMES = ("bytes-1", "bytes-2", "words-1", "words-2", "hnet-small-3", "hnet-byte260-2")


def readers_runs(here: Path) -> None:
    """Runs of the names that pages suppose, and a sweep, once there is one to copy; and an artifact by itself."""
    done = sorted(path.parent for path in (here / "runs").glob("*/result.json"))
    wide = here / "runs" / "width" / "wide-s1"
    if not done or wide.exists():
        return
    for path in (*(here / "runs" / name for name in (*NAMES, "hnet-byte260-3")), wide):
        if not path.exists():
            shutil.copytree(done[0], path)
    member = {"sweep": "width", "name": "wide", "seed": 1, "branch": "width", "track": "", "settings": {}}
    (wide / "member.json").write_text(json.dumps(member | {"digest": ""}))
    shutil.copy(newest_artifact(), here / "artifact.nib")


def test_commands_that_are_tested_elsewhere_are_there() -> None:
    lines = [line for page in reading_order() for line in commands(page)]
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.slow
def test_every_page_after_every_other(here: Path, niblick: Niblick) -> None:
    readers_files(here)
    ran: set[tuple[str, ...]] = set()
    for page in reading_order():
        if page == TUTORIAL:
            continue
        for line in commands(page):
            if line.startswith(tuple(ELSEWHERE)) or (asked := tuple(words(line))) in ran:
                continue
            ran.add(asked)
            program, *arguments = asked
            assert program == "niblick", f"{page}: {line}"
            code, _, err = niblick(*walked(arguments))
            assert code == 0, f"{page}: {line}\n{err}"
            readers_runs(here)
    assert len(ran) > 50


def steps() -> Iterator[tuple[str, str, str]]:
    """The blocks of the tutorial: language, file name, text."""
    text = (ROOT / TUTORIAL).read_text("utf-8")
    yield from re.findall(r'```(\w+)(?: title="(.+?)")?\n(.*?)```', text, flags=re.S)


@pytest.mark.slow
def test_tutorial_on_the_command_line(here: Path, niblick: Niblick) -> None:
    told, python, verbs = {}, 0, []
    for language, title, block in steps():
        if title:
            (here / title).write_text(block)
        for line in block.splitlines() if language == "console" else ():
            if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
                told[assigned[1]] = " ".join(TOY)
                continue
            for name, value in told.items():
                line = line.replace(f"${name}", value)
            program, *arguments = shlex.split(line)
            if program == "python":
                exec(arguments[1], {})
                python += 1
                continue
            verbs.append(arguments[0])
            code, out, err = niblick(*arguments)
            assert code == 0, f"{line}\n{err}"
            assert out or arguments[0] == "generate"
    assert python == 2
    assert set(verbs) >= {
        "data",
        "train",
        "show",
        "plot",
        "boundaries",
        "compare",
        "export",
        "fit",
        "generate",
        "audit",
    }
    assert (here / "part.txt").read_bytes() == (here / "back.txt").read_bytes()
    assert (here / "plots" / "curves.svg").is_file()


@pytest.mark.slow
def test_tutorial_in_python(here: Path) -> None:
    session: dict[str, object] = {}
    blocks = [block for language, title, block in steps() if language == "python" and not title]
    for _, title, block in steps():
        if title:
            (here / title).write_text(block)
    assert len(blocks) == 13
    toy = json.dumps(dict(word.split("=", 1) for word in TOY))
    for block in blocks:
        shown = re.sub(r"^budget = .*$", lambda match: f"budget = {toy}", block, flags=re.M)
        exec(compile(shown, TUTORIAL, "exec"), session)
    assert (here / "plots" / "curves.svg").is_file()


def test_pages_ask_for_one_folder_in_one_way() -> None:
    """So each page's data can be prepared after every other's, and after `niblick quickstart`."""
    asked: dict[str, dict[tuple[str, ...], str]] = {"data/pydocs": {("--source", "pydocs"): "niblick quickstart"}}
    for page in reading_order():
        for line in commands(page):
            if page == TUTORIAL or not line.startswith("niblick data prepare"):
                continue
            arguments = shlex.split(re.sub(r"\s+#.*", "", line))[3:]
            if "--out" in arguments:
                place = arguments.index("--out")
                rest = (*arguments[:place], *arguments[place + 2 :])
                asked.setdefault(arguments[place + 1], {})[rest] = f"{page}: {line}"
    assert len(asked) > 4
    assert {out: list(ways.values()) for out, ways in asked.items() if len(ways) > 1} == {}
