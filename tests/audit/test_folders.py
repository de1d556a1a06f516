"""Submission folders as people publish them: whatever their form, it is held against the files that lie there."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from test_log_forms import bpb, log

from niblick import cli
from niblick.audit.checks import Audit, Check
from niblick.audit.folders import folder_checks, read_folder
from niblick.submission.forms import read_form

SCRIPT = "print('trains, packs and scores')\n" * 40
LOSSES = {"42": 2.21, "314": 2.22, "999": 2.23}
SCORES = {seed: float(bpb(loss)) for seed, loss in LOSSES.items()}
MEAN = round(statistics.mean(SCORES.values()), 6)
CODE = len(SCRIPT)


def write(folder: Path, form: Any = None, seeds: tuple[str, ...] = tuple(LOSSES), inside: str = "") -> Path:
    """A folder with a script and a log of each seed, in the folder `inside` of it; `form` as submission.json."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    (folder / "train_gpt.py").write_text(SCRIPT)
    for seed in seeds:
        lines = log(last=LOSSES[seed] - 0.01, final=LOSSES[seed])
        lines = [line.replace("seed:7", f"seed:{seed}").replace("41000", str(CODE)) for line in lines]
        lines = [line.replace("9041123", str(9000123 + CODE)) for line in lines]
        (folder / inside / f"train_seed{seed}.log").write_text("\n".join(lines) + "\n")
    if form is not None:
        (folder / "submission.json").write_text(form if isinstance(form, str) else json.dumps(form))
    return folder


def claims(folder: Path) -> dict[str, Check]:
    return {c.name.removeprefix("claim: "): c for c in folder_checks(read_folder(folder)) if "evidence" in c.facts}


def outcome(folder: Path) -> str:
    return Audit("folder", "submission", tuple(folder_checks(read_folder(folder)))).outcome


TOTAL = 9000123 + CODE
FORMS: dict[str, Any] = {
    "plain": {"val_bpb": MEAN, "bytes_total": TOTAL, "bytes_code": CODE, "seeds": [42, 314, 999]},
    "texts": {"val_bpb": f"{MEAN:.4f} (mean of 3)", "bytes_total": f"{TOTAL:,} bytes", "bytes_code": str(CODE)},
    "megabytes": {"val_bpb": f"~{MEAN:.3f}", "bytes_total": "9.00 MB"},
    "objects by seed": {"val_bpb": MEAN, "seed_results": {s: {"val_bpb": v, "x": None} for s, v in SCORES.items()}},
    "scores by seed": {"mean_val_bpb": MEAN, "seeds": {f"seed_{s}": v for s, v in SCORES.items()}},
    "a list of objects": {"val_bpb": MEAN, "seeds": [{"seed": int(s), "val_bpb": v} for s, v in SCORES.items()]},
    "nested": {"results": {"mean_val_bpb": MEAN, "max_artifact_bytes": TOTAL,
                           "seeds": {s: {"val_bpb": v} for s, v in SCORES.items()}},
               "compliance": {"size_cap_bytes": 16_000_000, "three_seeds": True}},
    "one seed's": {"val_bpb": SCORES["42"]},
    "odd": {"val_bpb": True, "bytes_total": None, "seeds": "42", "author": ["a", {"b": []}], "bytes_code": [1]},
    "empty": {},
}  # fmt: skip


@pytest.mark.parametrize("inside", ["", "logs"])
@pytest.mark.parametrize("name", FORMS)
def test_forms_that_agree_with_their_files(name: str, inside: str, tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS[name], inside=inside)
    assert "fail" not in {check.status for check in claims(folder).values()}, claims(folder)
    assert outcome(folder) == "pass"
    if name not in ("odd", "empty"):
        assert claims(folder)["score"].status == "pass"


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"val_bpb": MEAN - 0.01}, "score"),
        ({"bytes_total": TOTAL - 1000}, "total"),
        ({"bytes_total": 16_000_001}, "total"),
        ({"bytes_code": CODE - 1}, "code"),
        ({"bytes_model_int8_zlib": 8_000_123}, "weights"),
        ({"seed_results": {"42": {"val_bpb": SCORES["42"] - 0.02}}, "val_bpb": SCORES["42"] - 0.02}, "seed 42"),
        ({"seed_results": {"42": 1.1, "314": 1.2}}, "score"),
    ],
)
def test_what_a_file_contradicts_is_a_failure(change: dict[str, Any], claim: str, tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["plain"] | change)
    assert claims(folder)[claim].status == "fail" and outcome(folder) == "not honest"


def test_what_has_nothing_beside_it_is_not_applicable_and_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path, {"val_bpb": 1.1, "bytes_total": 15_000_000, "bytes_model_x": 14_900_000}, seeds=())
    found = claims(folder)
    assert {name: check.status for name, check in found.items()} == dict.fromkeys(
        ("score", "code", "weights", "total"), "not applicable"
    )
    assert "no log" in found["score"].detail and "does not state it" in found["code"].detail
    assert "no artifact" in found["weights"].detail
    (tmp_path / "train_gpt.py").unlink()
    assert claims(write(tmp_path, {"bytes_code": 7}, seeds=()))["code"].status == "fail"


def test_one_log_of_three_seeds_does_not_contradict_their_mean(tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["plain"], seeds=("42",))
    assert claims(folder)["score"].status == "not applicable" and outcome(folder) == "pass"
    alone = write(tmp_path, {"val_bpb": MEAN - 0.01}, seeds=("42",))
    assert claims(alone)["score"].status == "fail"


def test_artifacts_are_witnesses(tmp_path: Path) -> None:
    form = {"bytes_total": TOTAL, "bytes_model_int8_zlib": 9000123, "bytes_code": CODE}
    folder = write(tmp_path, form, seeds=("42",))
    (folder / "final_model.int8.ptz").write_bytes(bytes(9000123))
    assert outcome(folder) == "pass" and claims(folder)["artifact of the logs"].status == "pass"
    (folder / "final_model.int8.ptz").write_bytes(bytes(9000124))
    failed = {name for name, check in claims(folder).items() if check.status == "fail"}
    assert failed == {"weights", "total", "artifact of the logs"}


def test_code_is_weighed_as_shipped(tmp_path: Path) -> None:
    """A log that counted the unpacked source is over the cap; with the packed script it is under it."""
    packed = "import base64, zlib\nexec(zlib.decompress(base64.b85decode('" + "x" * 3000 + "')))\n"
    unpacked, model = 94_963, 15_960_000
    lines = [line.replace("9000123", str(model)).replace("41000", str(unpacked)) for line in log()]
    lines = [line.replace("9041123", str(model + unpacked)) for line in lines]
    (tmp_path / "train.log").write_text("\n".join(lines))
    (tmp_path / "train_gpt.py").write_text(packed)
    (tmp_path / "submission.json").write_text(json.dumps({"bytes_total": model + len(packed), "bytes_code": unpacked}))
    found = {check.name: check for check in folder_checks(read_folder(tmp_path))}
    assert "the script is shipped in" in found["train.log: artifact"].detail
    assert "unpacked source was counted" in found["claim: code"].detail
    assert not [check for check in found.values() if check.status in ("fail", "look")]
    (tmp_path / "train_gpt.py").write_text("#" * (unpacked - 5))
    assert outcome(tmp_path) == "not honest"


def test_another_script_than_the_log_weighed_is_to_be_looked_at(tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["one seed's"])
    (folder / "train_gpt.py").write_text(SCRIPT * 3)
    assert claims(folder)["code of train_seed42.log"].status == "look"


def test_every_file_counts(tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["plain"])
    (folder / "README.md").write_text("# what it is")
    (folder / "notes.txt").write_text("no log")
    found = {check.name: check for check in folder_checks(read_folder(folder))}
    assert found["files"].status == "pass" and "notes.txt" in found["other texts"].detail
    for name in ("table.npy", "words.txt", "helper.py"):
        with open(folder / name, "wb") as file:
            file.truncate(16 << 20)
        if name == "helper.py":
            (folder / name).write_bytes(b"#" * (16 << 20))
        found = {check.name: check for check in folder_checks(read_folder(folder))}
        assert found["files"].status == "fail" and name in found["files"].detail
        (folder / name).unlink()
    for seed in (1, 2):
        with open(folder / f"final_model_seed{seed}.ptz", "wb") as file:
            file.truncate(9000123)
    assert outcome(folder) == "pass"


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "\0\1\2\3\0"])
def test_a_form_that_cannot_be_read_says_so(text: str, tmp_path: Path) -> None:
    folder = write(tmp_path, text)
    check = claims(folder)["submission.json"]
    assert check.status == "not applicable" and "cannot be read" in check.detail


def test_forms_by_other_names(tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["plain"])
    (folder / "submission.json").rename(folder / "submission_final_v2.json")
    assert claims(folder)["score"].detail.startswith("submission_final_v2.json says val_bpb")
    assert read_form(folder / "submission_final_v2.json").seeds[1].seed == "314"


def test_the_command_shows_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    folder = write(tmp_path, FORMS["plain"])
    monkeypatch.setattr("sys.argv", ["niblick", "audit", str(folder)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("evidence") == 1 and "has no final_model.nib" in said and "checks passed" in said
