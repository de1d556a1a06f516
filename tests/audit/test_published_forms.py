"""What forms and logs say of themselves, in the shapes that people publish: made up here, with their own numbers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from test_folders import CODE, FORMS, LOSSES, MEAN, SCORES, TOTAL, claims, outcome, write
from test_log_forms import audited, log
from test_log_forms import outcome as log_outcome

from niblick.audit.checks import Audit
from niblick.audit.folders import folder_checks, read_folder
from niblick.submission.forms import read_form

SPREAD = round(statistics.stdev(SCORES.values()), 6)
BY_SEED = {seed: {"val_bpb": SCORES[seed], "val_loss": LOSSES[seed], "artifact_bytes": TOTAL} for seed in SCORES}


def test_a_form_alone_is_no_pass(tmp_path: Path) -> None:
    """Nothing is beside it, so nothing was checked; its own seeds are something."""
    assert outcome(form(tmp_path, {"val_bpb": 1.23, "bytes_total": 15_000_000})) == "nothing read"
    assert outcome(form(tmp_path, {"val_bpb": MEAN, "val_bpb_std": SPREAD, "seed_results": BY_SEED})) == "pass"


def form(folder: Path, facts: dict[str, Any]) -> Path:
    write(folder, facts, seeds=())
    (folder / "train_gpt.py").unlink()
    return folder


@pytest.mark.parametrize(
    ("facts", "claim"),
    [
        ({"val_loss": 2.19}, "loss"),
        ({"val_bpb_std": SPREAD / 2, "seed_results": BY_SEED}, "spread"),
        ({"val_bpb_std": SPREAD * 2, "val_bpb_seeds": list(SCORES.values())}, "spread"),
        ({"val_bpb_seeds": [value - 0.02 for value in SCORES.values()]}, "score"),
        ({"pre_quant_val_loss": 2.2, "pre_quant_val_bpb": 1.25, "val_loss": 2.22}, "loss and score"),
        ({"seed_results": BY_SEED | {"314": BY_SEED["314"] | {"artifact_bytes": TOTAL - 9}}}, "total of seed 314"),
        ({"seed_results": BY_SEED | {"314": BY_SEED["314"] | {"artifact_bytes": 16_000_001}}}, "total of seed 314"),
    ],
)
def test_what_a_form_says_of_itself_is_held_together(facts: dict[str, Any], claim: str, tmp_path: Path) -> None:
    folder = write(tmp_path, FORMS["plain"] | facts)
    assert claims(folder)[claim].status == "fail" and outcome(folder) == "not honest"


def test_losses_spreads_and_sizes_of_seeds_that_agree(tmp_path: Path) -> None:
    facts = {"val_bpb_std": SPREAD, "val_loss": 2.22, "seed_results": BY_SEED}
    found = claims(write(tmp_path, FORMS["plain"] | facts))
    assert {found[name].status for name in ("score", "loss", "spread", "loss and score", "total of seed 42")} == {
        "pass"
    }


def test_the_log_that_says_so_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"val_bpb": SCORES["999"], "bytes_total": TOTAL})
    said = claims(folder)["score"].facts["evidence"]
    assert said.startswith("train_seed999.log says so; the mean of all 3 is")
    two = {"val_bpb": statistics.mean([SCORES["42"], SCORES["314"]])}
    (folder / "train_seed999.log").unlink()
    assert claims(write(tmp_path, two, seeds=("42", "314")))["score"].facts["evidence"].startswith("the mean of 2 logs")


def test_training_and_scoring_may_have_a_log_each(tmp_path: Path) -> None:
    """The training log of a seed ends with another score than the one that counts, whatever the files are called."""
    folder = write(
        tmp_path, {"seed_results": {"42": {"val_bpb": SCORES["42"]}}, "val_bpb": SCORES["42"]}, seeds=("42",)
    )
    lines = [line.replace("seed:7", "seed:42") for line in log(final=2.3)]
    (folder / "zz_train_seed42.log").write_text("\n".join(lines))
    assert claims(folder)["seed 42"].status == "pass"


def test_digits_are_those_that_were_printed(tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text('{"val_bpb": 1.1000, "bytes_total": 5, "val_loss": NaN}')
    stated = read_form(tmp_path / "submission.json").bpb
    assert stated is not None and stated.slack == pytest.approx(5e-5)


@pytest.mark.parametrize("said", [{"track": "non-record-over-cap"}, {"track": "unlimited"}, {"bytes_over_limit": 9}])
def test_over_the_cap_and_open_about_it_is_to_be_looked_at(said: dict[str, Any], tmp_path: Path) -> None:
    large = {"bytes_total": 20_000_000, "val_bpb": MEAN}
    folder = write(tmp_path, large | said)
    for path in folder.glob("*.log"):
        text = path.read_text().replace("9000123", str(20_000_000 - CODE))
        path.write_text(text.replace(str(TOTAL), "20000000"))
    assert outcome(folder) == "look" and claims(folder)["total"].status == "look"
    assert outcome(write(folder, large, seeds=())) == "not honest"


def test_a_third_part_that_the_log_weighs_is_counted() -> None:
    lines = [line.replace("9041123", str(9_041_123 + 7_000)) for line in log()]
    assert audited(lines)["artifact"].status == "fail"
    at = next(i for i, line in enumerate(lines) if line.startswith("Total"))
    assert audited([*lines[:at], "Word table blob: 7000 bytes", *lines[at:]])["artifact"].status == "pass"
    assert log_outcome(audited(["Word table blob: 7000 bytes"])) == "nothing read"


def test_limits_that_a_line_gives_itself() -> None:
    line = "packing_wallclock: {}s (must be < 600.0)"
    assert audited([*log(), line.format(512.25)])["unlikely facts"].status == "pass"
    assert "must be under 600" in audited([*log(), line.format(1100.3)])["own limits"].detail


@pytest.mark.parametrize("name", ["fineweb10B_sp1024_casefold_v2", "fineweb10B_lowercase_sp8192", "fineweb10B_nfkc"])
def test_texts_that_were_changed_for_good(name: str) -> None:
    assert name in audited(log(dataset=name))["text"].detail


@pytest.mark.parametrize("name", ["fineweb10B_sp8192_lossless_caps_v1", "fineweb10B_sp4096", "fineweb10B_sp1024"])
def test_texts_that_come_back_are_no_others(name: str) -> None:
    assert "text" not in audited(log(dataset=name))


def test_training_files_that_are_called_validation_only() -> None:
    assert audited(log(dataset="fineweb10B_sp1024_valonly"))["training files"].status == "look"


def test_longer_windows_may_be_better_than_the_float_weights() -> None:
    lines = log(last=2.22, final=2.20)
    assert "float and packed" in audited(lines)
    assert "float and packed" not in audited([*lines[:-2], "eval_seq_len:2048 (rescaled positions)", *lines[-2:]])


def test_settings_are_read_line_by_line() -> None:
    """Newer scripts list them by themselves, and their own source after it: `seed: int` is no setting."""
    listed = ["Hyperparameters:", "  max_wallclock_seconds: 300.0", "  seed: 5", "Source code:", "    seed: int"]
    lines = [*listed, *(line.replace(" max_wallclock_seconds:600.000", "").replace("seed:7", "") for line in log())]
    assert "over the limit of 300 s" in audited(lines)["steps and times"].detail


def test_the_verdict_of_a_folder_says_what_was_not_there(tmp_path: Path) -> None:
    found = Audit("it", "submission", tuple(folder_checks(read_folder(form(tmp_path, {"val_bpb": 1.2})))))
    assert found.exit_code() == 2 and "no pass" in found.sentence()
