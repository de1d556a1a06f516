"""Code that came with a run is not run by those who look at it, and by nobody else before it is trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import forked
import pytest
from command import Niblick

from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.files import copy_recipe
from niblick.recipes.trust import expect_trusted, recipe_digest, trust, trusted_list

OWN = """
from niblick.config.run_config import override
from niblick.recipes.presets import get_preset

SMALL = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.seq_len=32"]
SMALL += ["train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu", "train.warmup_steps=0"]
SMALL += ["schedule.steps=2", "schedule.max_seconds=null", "score.seq_len=64"]


def recipe():
    return override(get_preset("hnet-small"), SMALL)
"""
LOOKS = (
    ["show", "{run}"],
    ["show", "{artifact}"],
    ["compare", "{run}", "{other}"],
    ["runs"],
    ["leaderboard"],
    ["tag", "seen", "{run}"],
    ["report", "{run}", "--out", "{out}"],
    ["watch", "{run}", "--once"],
)
OPENS = (
    ["eval", "{run}"],
    ["generate", "{run}", "--prompt", "a"],
    ["boundaries", "{run}"],
    ["audit", "{run}"],
    ["export", "{run}", "scheme=int6"],
    ["fit", "{run}"],
    ["submit", "{run}", "--out", "{out}"],
    ["show", "{run}/recipe.py"],
    ["size", "{run}/recipe.py"],
    ["train", "{run}/recipe.py"],
)


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of one recipe; in one of them it was written anew by somebody else, and leaves a mark when it runs."""
    folder = tmp_path_factory.mktemp("trust")
    prepare("pydocs", "byte260", folder / "data", max_docs=24, val_docs=4)
    (folder / "mine.py").write_text(OWN)
    command = ["-m", "niblick", "train", folder / "mine.py", "--data", folder / "data", "--runs"]
    done = forked.run([*command, folder / "runs"])
    assert done.returncode == 0, done.stderr
    [run] = (folder / "runs").glob("*-1")
    run.rename(folder / "runs" / "own")
    shutil.copytree(folder / "runs" / "own", folder / "runs" / "pulled")
    mark = f"from pathlib import Path\nPath({str(folder / 'mark')!r}).touch()\n"
    (folder / "runs" / "pulled" / "recipe.py").write_text(mark + OWN)
    return folder


def words(pattern: list[str], folder: Path, out: Path) -> list[str]:
    run = folder / "runs" / "pulled"
    [artifact] = run.glob("artifacts/*/artifact.nib")
    named = {"run": run, "artifact": artifact, "other": folder / "runs" / "own", "out": out}
    return [
        *(word.format(**named) for word in pattern),
        *([] if "{artifact}" in pattern or pattern[0] == "size" else ["--runs", str(run.parent)]),
    ]


@pytest.mark.parametrize("pattern", LOOKS, ids=lambda words: words[0])
def test_looking_runs_nothing(pattern: list[str], pulled: Path, niblick: Niblick, tmp_path: Path) -> None:
    code, _, err = niblick(*words(pattern, pulled, tmp_path / "out"))
    assert code == 0, err
    assert not (pulled / "mark").exists()


@pytest.mark.parametrize("pattern", OPENS, ids=lambda words: words[0])
def test_what_opens_a_model_wants_trust(pattern: list[str], pulled: Path, niblick: Niblick, tmp_path: Path) -> None:
    said = niblick.refused(*words(pattern, pulled, tmp_path / "out"))
    assert "recipe.py is code that was never trained here, so it is not run" in said
    assert f"`niblick trust {pulled / 'runs' / 'pulled'}`" in said
    assert not (pulled / "mark").exists()


def test_one_s_own_recipes_are_trusted_and_others_by_name(pulled: Path, niblick: Niblick, tmp_path: Path) -> None:
    runs = ["--runs", pulled / "runs"]
    assert niblick.json("eval", "own", *runs)["bpb"] > 0
    shutil.copytree(pulled / "runs", tmp_path / "runs")
    runs = ["--runs", tmp_path / "runs"]
    found = niblick.json("trust", "pulled", *runs)
    assert found["sha256"] == recipe_digest(tmp_path / "runs" / "pulled" / "recipe.py")
    assert niblick.json("eval", "pulled", *runs)["bpb"] > 0
    assert (pulled / "mark").exists()
    (pulled / "mark").unlink()
    recipe = tmp_path / "runs" / "pulled" / "recipe.py"
    recipe.write_text(recipe.read_text() + "# changed afterwards\n")
    assert "niblick trust" in niblick.refused("eval", "pulled", *runs)
    assert not (pulled / "mark").exists()


def test_a_run_of_a_preset_has_nothing_to_trust(niblick: Niblick, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text(json.dumps({}))
    assert "has no recipe to trust" in niblick.refused("trust", "plain", "--runs", tmp_path)


def test_modules_beside_a_recipe_count(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text("import helper_of_trust\n")
    (tmp_path / "helper_of_trust.py").write_text("A = 1\n")
    trust(tmp_path / "recipe.py")
    expect_trusted(tmp_path / "recipe.py")
    assert recipe_digest(tmp_path / "recipe.py") in trusted_list().read_text().split()
    (tmp_path / "helper_of_trust.py").write_text("A = 2\n")
    with pytest.raises(ConfigError, match="is code that was never trained here"):
        expect_trusted(tmp_path / "recipe.py")


def test_any_file_added_to_a_run_asks_again(tmp_path: Path) -> None:
    """Code can import in more ways than can be read: a run holds what was copied into it, and nothing else."""
    mine, run = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text("import helper_of_run\n")
    (tmp_path / "helper_of_run.py").write_text("A = 1\n")
    (tmp_path / "another.py").write_text("of no run\n")
    run.mkdir()
    (run / "config.json").write_text("{}")
    copy_recipe(mine, run)
    trust(mine)
    expect_trusted(run / "recipe.py")
    (run / "later.py").write_text("print('imported by its name put together')\n")
    with pytest.raises(ConfigError, match="is code that was never trained here"):
        expect_trusted(run / "recipe.py")
