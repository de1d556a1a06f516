"""The measured score is ours: what a script prints is a claim, held against niblick's own score of the artifact."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from niblick.audit import auditor
from niblick.audit.claims import stated_score
from niblick.audit.function_checks import Effort
from niblick.submission.cage import Cage
from niblick.submission.rerun import Handling

GOLDEN = Path(__file__).parents[1] / "run" / "golden_runs.zip"
SCRIPT = """print("final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")\n"""


def test_a_stated_score_is_held_against_our_own_and_then_the_scripts() -> None:
    assert stated_score(2.0, 2.0, 2.0).status == "pass"
    assert stated_score(2.001, 2.0, 2.00005).status == "pass"
    assert stated_score(2.01, 2.0, 2.0).status == "fail"
    assert stated_score(2.0, 2.0, 2.0002).status == "fail"
    assert stated_score(float("nan"), 2.0, None).status == "fail"
    assert stated_score(2.0, float("nan"), None).status == stated_score(None, 2.0, None).status == "not applicable"


@pytest.mark.slow
@pytest.mark.parametrize(("stated", "printed"), [(0.5, 0.5), (None, 0.5)])
def test_a_script_that_prints_a_wrong_score(tmp_path: Path, stated: float | None, printed: float) -> None:
    """It used to be honest: the script agreed with the form, and both with nothing."""
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path)
    [artifact] = tmp_path.glob("runs/finished/artifacts/*/artifact.nib")
    true = json.loads((tmp_path / "runs" / "finished" / "result.json").read_text())["bpb"]
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "final_model.nib").write_bytes(artifact.read_bytes())
    (folder / "train_gpt.py").write_text(SCRIPT.format(loss=1.0, bpb=printed))
    (folder / "submission.json").write_text(json.dumps({"val_bpb": stated or true}))
    options = auditor.Options(Effort(tokens=1 << 10), handling=Handling(Cage("none"), environment=Path(sys.executable)))
    found = auditor.audit(str(folder), tmp_path / "runs", str(tmp_path / "data"), options)
    checks = {check.name: check for check in found.checks}
    assert checks["stated score"].status == "fail"
    assert ("0.500000 BPB is stated" if stated else "the script prints 0.5") in checks["stated score"].detail
    assert checks["stated score"].facts["script"] == printed
    assert abs(checks["stated score"].facts["own"] - true) < 1e-4
