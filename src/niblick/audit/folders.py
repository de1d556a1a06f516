"""The audit of a submission folder: what its form, logs, scripts and artifact say of each other.

A claim is what the form states, or a log. Its evidence is what another file says or weighs. What is not stated, or has
nothing to be held against, is not applicable, and says so; what a file contradicts is a failure.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from niblick.audit.checks import Check, failed, look, not_applicable, passed
from niblick.audit.form_claims import absent, agrees, agrees_on_average, inner_claims, over_cap, row
from niblick.audit.log_checks import audit_log
from niblick.audit.script_checks import audit_script
from niblick.challenge import rules
from niblick.challenge.log_reader import ChallengeLog, read_log
from niblick.errors import ConfigError, DataError
from niblick.files import read_text
from niblick.submission.forms import Form, SeedClaim, Stated, find_forms, read_form

ARTIFACTS = (".nib", ".ptz", ".pt", ".bin", ".safetensors", ".npz", ".zst", ".br", ".xz", ".lzma")
"""Endings of files that hold weights."""

PAPERS = (".md", ".png", ".svg", ".jpg", ".jpeg", ".gif", ".pdf")
"""Endings of what explains a submission: no part of what runs."""

LARGE_SCRIPT = 1 << 20
"""Bytes above which a script beside the one that runs is counted: it holds data."""

SMALL_FILES = 100_000
"""Bytes of other files (tokenizers, shell scripts) that are named, and no more."""

CODE_SHARE = 0.01
"""Share by which the code that a log weighed may differ from what is shipped: a script made anew, not another one."""

_SKIPPED = ("__pycache__", "node_modules", "site-packages")


@dataclass(frozen=True)
class Log:
    """One log of a folder, and what its last run claims."""

    name: str
    run: ChallengeLog

    @property
    def seed(self) -> str:
        """The seed that it says, else the number after `seed` in its name."""
        number = self.run.number("seed")
        if number is not None:
            return str(int(number))
        found = re.search(r"seed[_-]?(\d+)", self.name, re.IGNORECASE)
        return found[1] if found else ""

    @property
    def scores(self) -> list[float]:
        """All scores after training."""
        return [float(claim.bpb) for claim in self.run.finals]

    @property
    def best(self) -> float | None:
        """The score that counts."""
        return float(self.run.best.bpb) if self.run.best else None


@dataclass(frozen=True)
class Folder:
    """A submission folder: its files by what they are."""

    path: Path
    forms: tuple[Path, ...]
    form: Form | None
    problem: str
    """Why the form cannot be read."""
    scripts: tuple[Path, ...]
    logs: tuple[Log, ...]
    left_out: tuple[str, ...]
    """Texts without a line of a log, by name."""
    artifacts: tuple[Path, ...]
    others: tuple[Path, ...]
    """Files that are neither of these nor explain anything."""

    @property
    def script(self) -> Path | None:
        """The script that runs: train_gpt.py, or the only one."""
        named = [path for path in self.scripts if path.name == "train_gpt.py"]
        return named[0] if named else self.scripts[0] if len(self.scripts) == 1 else None

    @property
    def code(self) -> int | None:
        """Bytes of the script that runs, as shipped."""
        return self.script.stat().st_size if self.script else None

    def name(self, path: Path) -> str:
        """A file's name in the folder."""
        return path.relative_to(self.path).as_posix()


def read_folder(path: Path) -> Folder:
    """Look through a folder. Raises ConfigError if it holds nothing that can be audited."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and not _skipped(p.relative_to(path)))
    scripts = tuple(p for p in files if p.suffix == ".py" and p.parent == path) or tuple(
        p for p in files if p.suffix == ".py"
    )
    logs, left_out = _logs(path, files)
    forms = find_forms(path)
    form, problem = None, ""
    if forms:
        try:
            form = read_form(forms[0])
        except (DataError, ValueError, RecursionError) as error:
            problem = f"{forms[0].name} cannot be read: {error}"
    if not scripts and not logs and not forms:
        raise ConfigError(
            f"{path} holds no script (*.py), no log (*.log, *.txt) and no submission.json: name a run, file or folder"
        )
    artifacts = tuple(p for p in files if p.suffix in ARTIFACTS)
    read = (
        {path / log.name for log in logs}
        | set(forms)
        | {p for p in files if p.name.startswith(("LICENSE", "requirements"))}
    )
    others = tuple(p for p in files if p.suffix not in (*ARTIFACTS, *PAPERS, ".py") and p not in read)
    return Folder(path, tuple(forms), form, problem, scripts, logs, left_out, artifacts, others)


def _skipped(path: Path) -> bool:
    return any(part.startswith(".") or part in _SKIPPED for part in path.parts)


def _logs(path: Path, files: list[Path]) -> tuple[tuple[Log, ...], tuple[str, ...]]:
    logs, left_out = [], []
    for file in files:
        if file.suffix not in (".txt", ".log") or "requirements" in file.name:
            continue
        name = file.relative_to(path).as_posix()
        try:
            run = read_log(read_text(file))
        except DataError:
            run = ChallengeLog()
        if run.empty:
            left_out.append(name)
        else:
            logs.append(Log(name, run))
    return tuple(logs), tuple(left_out)


def folder_checks(folder: Folder) -> list[Check]:
    """All checks that read: of each script and log by itself, and of what they and the form say of each other."""
    checks: list[Check] = []
    for path in folder.scripts:
        name = folder.name(path)
        try:
            found = audit_script(read_text(path), name)
        except (ConfigError, DataError) as error:
            found = [not_applicable("script", str(error), "look")]
        checks += [replace(check, name=f"{name}: {check.name}") for check in found]
    for log in folder.logs:
        beyond = folder.form.beyond if folder.form is not None else ""
        found = audit_log(read_text(folder.path / log.name), shipped_code=folder.code, beyond=beyond)
        checks += [replace(check, name=f"{log.name}: {check.name}") for check in found]
    if folder.left_out:
        said = f"without a line of a challenge log, and left out: {', '.join(folder.left_out[:8])}"
        checks.append(not_applicable("other texts", said, "stated"))
    return [*checks, *claims(folder), files(folder)]


# What is claimed, and what stands against it


def claims(folder: Folder) -> list[Check]:
    """All claims of a folder, each with its evidence and verdict."""
    if folder.form is None:
        why = folder.problem or "there is no submission.json, so nothing is claimed but by the logs"
        return [row("submission.json", "", why, "not applicable"), *_logs_and_files(folder)]
    form = folder.form
    return [
        *_score(folder, form),
        *inner_claims(form),
        *_loss(folder, form),
        *_seed_scores(folder, form),
        _code(folder, form),
        _model(folder, form),
        *_total(folder, form),
        *_digest(folder, form),
        *_logs_and_files(folder),
    ]


def _score(folder: Folder, form: Form) -> Iterator[Check]:
    """The score is that of a log, or the mean of several; and the mean of the seeds that the form states itself."""
    name, stated = "score", form.bpb
    if stated is None:
        yield absent(name, form)
        return
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    own = [seed.value for seed in form.own_scores]
    if own and not (agrees(stated, own) or agrees_on_average(stated, own)):
        mean = f"the mean of its own {len(own)} seeds is {statistics.mean(own):.6f}"
        yield row(name, claim, mean, "fail")
        return
    scored = [log for log in folder.logs if log.scores]
    if told := _witness(stated, scored):
        yield row(name, claim, told, "pass")
    elif not scored:
        told = "no log gives a score" if folder.logs else "there is no log"
        same = "one of its own seeds" if len(own) == 1 or agrees(stated, own) else "the mean of its own seeds"
        yield row(name, claim, told + (f", but it is {same}" if own else ""), "not applicable")
    elif len(scored) < len(form.seeds):
        one = next((s.seed for s in form.seeds if s.bpb is not None and agrees(stated, [s.bpb.value])), "")
        told = f"{len(scored)} logs of {len(form.seeds)} seeds are there: "
        told += (
            f"it is the form's own score of seed {one}, whose log is not" if one else "the mean cannot be made again"
        )
        yield row(name, claim, told, "not applicable")
    else:
        told = ", ".join(f"{log.name} {log.best:.8g}" for log in scored[:4] if log.best is not None)
        yield row(name, claim, f"the logs say otherwise: {told}", "fail")


def _witness(stated: Stated, logs: list[Log]) -> str:
    """Which log or logs give a score, in words; "" if none do."""
    bests = [log.best for log in logs if log.best is not None]
    mean = f"; the mean of all {len(bests)} is {statistics.mean(bests):.6f}" if len(bests) > 1 else ""
    for log in sorted(logs, key=lambda log: not agrees(stated, [log.best] if log.best is not None else [])):
        if agrees(stated, log.scores):
            return f"{log.name} says so{mean}"
    if len(bests) > 1 and agrees_on_average(stated, bests):
        return f"the mean of {len(bests)} logs: {', '.join(f'{best:.6g}' for best in bests[:5])}"
    return ""


def _loss(folder: Folder, form: Form) -> Iterator[Check]:
    """The loss in nats per token is that of a log, or the mean of several, as the score is."""
    name, stated = "loss", form.loss
    told = [[float(c.loss) for c in log.run.finals if c.loss is not None] for log in folder.logs]
    losses = [one for one in told if one]
    if stated is None or not losses:
        return
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    bests = [min(one) for one in losses]
    if agrees(stated, [loss for one in losses for loss in one]):
        yield row(name, claim, "a log says so", "pass")
    elif agrees_on_average(stated, bests):
        yield row(name, claim, f"the mean of {len(bests)} logs", "pass")
    elif len(losses) < len(form.seeds):
        yield row(name, claim, f"{len(losses)} logs of {len(form.seeds)} seeds are there", "not applicable")
    else:
        said = ", ".join(f"{loss:.8g}" for loss in bests[:4])
        yield row(name, claim, f"the logs say otherwise: {said}", "fail")


def _seed_scores(folder: Folder, form: Form) -> Iterator[Check]:
    """What is stated of a seed is what a log of that seed says; training and scoring may have a log each."""
    for seed in form.seeds:
        logs = [log for log in folder.logs if log.seed == seed.seed]
        yield from _seed_score(form, seed, [log for log in logs if log.scores])
        yield from _seed_total(form, seed, logs, [path.stat().st_size for path in folder.scripts])


def _seed_score(form: Form, seed: SeedClaim, logs: list[Log]) -> Iterator[Check]:
    if seed.bpb is None:
        return
    name, claim = f"seed {seed.seed}", f"{form.path.name} says {seed.bpb.text} of seed {seed.seed}"
    agreeing = [log for log in logs if agrees(seed.bpb, log.scores)]
    if not logs:
        yield row(name, claim, "there is no log of this seed with a score", "not applicable")
    elif agreeing:
        yield row(name, claim, f"{agreeing[0].name} says so", "pass")
    else:
        told = ", ".join(f"{log.name} says {log.best:.8g}" for log in logs[:3] if log.best is not None)
        yield row(name, claim, told, "fail")


def _seed_total(form: Form, seed: SeedClaim, logs: list[Log], scripts: list[int]) -> Iterator[Check]:
    """The bytes that are stated of a seed are under the cap, and what its logs add up to."""
    if seed.total is None:
        return
    name, claim = f"total of seed {seed.seed}", f"{form.path.name} says {seed.total.name} {seed.total.text}"
    if seed.total.value - seed.total.slack > rules.CAP_BYTES:
        yield over_cap(name, claim, form)
        return
    totals = [float(s.said.size) for log in logs for s in log.run.sizes if s.said.what == "total" and not s.said.slack]
    models = [s.said.size for log in logs for s in log.run.sizes if s.said.what == "model" and not s.said.slack]
    totals += [float(model + code) for model in models for code in [*scripts, 0]]
    if totals:
        same = any(abs(total - seed.total.value) <= seed.total.slack for total in totals)
        yield row(name, claim, f"its log adds up to {_counted(totals)}", "pass" if same else "fail")


def _code(folder: Folder, form: Form) -> Check:
    name, stated = "code", form.code
    if stated is None:
        return absent(name, form)
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    if not folder.scripts:
        return row(name, claim, "there is no script to weigh", "not applicable")
    sizes = {folder.name(path): path.stat().st_size for path in folder.scripts}
    weighed = ", ".join(f"{file} {size:,}" for file, size in list(sizes.items())[:4])
    if any(abs(size - stated.value) <= stated.slack for size in [*sizes.values(), sum(sizes.values())]):
        return row(name, claim, f"as weighed ({weighed})", "pass", "measured")
    if folder.code is not None and folder.code < stated.value and _packed(folder.script):
        told = f"what is shipped is packed and weighs less ({weighed}): the unpacked source was counted"
        return row(name, claim, told, "pass", "measured")
    return row(name, claim, f"the scripts weigh otherwise ({weighed})", "fail", "measured")


def _packed(script: Path | None) -> bool:
    """Whether a script unpacks and runs what is packed in it."""
    if script is None:
        return False
    try:
        text = read_text(script)
    except DataError:
        return False
    return bool(re.search(r"\bexec\s*\(|\bcompile\s*\(", text) and re.search(r"decompress|b85decode|b64decode", text))


def _model(folder: Folder, form: Form) -> Check:
    name, stated = "weights", form.model
    if stated is None:
        return absent(name, form)
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    sizes = {folder.name(path): path.stat().st_size for path in folder.artifacts}
    if sizes:
        weighed = ", ".join(f"{file} {size:,}" for file, size in list(sizes.items())[:4])
        same = any(abs(size - stated.value) <= stated.slack for size in sizes.values())
        return row(name, claim, f"weighed: {weighed}", "pass" if same else "fail", "measured")
    logged = [s.said.size for log in folder.logs for s in log.run.sizes if s.said.what == "model" and not s.said.slack]
    if logged and len(folder.logs) >= len(form.seeds):
        same = any(abs(size - stated.value) <= stated.slack for size in [*logged, statistics.mean(logged)])
        return row(name, claim, f"the logs say {_counted(logged)}", "pass" if same else "fail")
    return row(name, claim, "there is no artifact, and no log of each seed that weighs it", "not applicable")


def _total(folder: Folder, form: Form) -> Iterator[Check]:
    """The total is under the cap, and what the files or the logs give."""
    name, stated = "total", form.total
    if stated is None:
        if not any(seed.total for seed in form.seeds):  # those are claims of their own
            yield absent(name, form)
        return
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    if stated.value - stated.slack > rules.CAP_BYTES:
        yield over_cap(name, claim, form)
        return
    weighed, told = _weighed(folder, form)
    if not weighed:
        yield row(name, claim, f"under the cap; {told}", "not applicable")
        return
    same = any(abs(total - stated.value) <= stated.slack for total in weighed)
    yield row(
        name,
        claim,
        f"{told} {_counted(weighed)}",
        "pass" if same else "fail",
        "measured" if folder.artifacts else "stated",
    )


def _weighed(folder: Folder, form: Form) -> tuple[list[float], str]:
    """The totals that the artifact and the script give, or else the logs, and words for them."""
    scripts = [path.stat().st_size for path in folder.scripts]
    if folder.artifacts and scripts:
        sizes = [path.stat().st_size for path in folder.artifacts]
        stated = [form.code.value] if form.code is not None else []
        return [model + code for model in sizes for code in [*scripts, *stated]], "the files weigh"
    totals: list[float] = []
    for log in folder.logs:
        models = [s.said.size for s in log.run.sizes if s.said.what == "model" and not s.said.slack]
        totals += [s.said.size for s in log.run.sizes if s.said.what == "total" and not s.said.slack]
        counted = [round(form.code.value)] if form.code is not None else []
        totals += [model + code for model in models for code in [*scripts, *counted]]
    if not totals or len(folder.logs) < len(form.seeds):
        return [], "there is no artifact, and no log of each seed that adds it up"
    average = statistics.mean(totals[: len(folder.logs)])
    if form.total is not None and average != totals[0] and round(average) == form.total.value:
        return [average], "the mean of what the logs add up to is"
    return totals, "the logs add up to"


def _digest(folder: Folder, form: Form) -> Iterator[Check]:
    if not form.artifact_sha256 or not folder.artifacts:
        return
    from niblick.data.shards import file_hash

    same = any(file_hash(path) == form.artifact_sha256 for path in folder.artifacts)
    told = "an artifact has it" if same else "no file in the folder has it"
    claim = f"{form.path.name} says artifact_sha256 {form.artifact_sha256[:12]}…"
    yield row("artifact", claim, told, "pass" if same else "fail", "measured")


def _logs_and_files(folder: Folder) -> Iterator[Check]:
    """What logs weigh is what lies in the folder."""
    sizes = [path.stat().st_size for path in folder.artifacts]
    stated = {s.said.size for log in folder.logs for s in log.run.sizes if s.said.what == "model" and not s.said.slack}
    if sizes and stated:
        same = bool(stated & set(sizes))
        claim = f"the logs weigh artifacts of {_counted(sorted(stated))}"
        yield row("artifact of the logs", claim, f"there are {_counted(sizes)}", "pass" if same else "fail", "measured")
    for log in folder.logs:
        said = log.run.size("code")
        if said is None or folder.code is None or not folder.script:
            continue
        claim, name = f"{log.name} weighs code of {said.size:,}", f"code of {log.name}"
        evidence = f"{folder.name(folder.script)} weighs {folder.code:,}"
        scripts = [path.stat().st_size for path in folder.scripts]
        if any(abs(said.size - size) <= max(said.slack, CODE_SHARE * size) for size in [*scripts, sum(scripts)]):
            yield row(name, claim, evidence, "pass")
        elif folder.code < said.size and _packed(folder.script):
            yield row(name, claim, f"{evidence}, packed: the unpacked source was counted", "pass")
        else:
            yield row(name, claim, f"{evidence}: the log is of another script, or of more files", "look", "look")


def files(folder: Folder) -> Check:
    """Everything in the folder that could be needed to run is under the cap together, named or not."""
    name = "files"
    beside = [p for p in folder.scripts if p != folder.script and p.stat().st_size > LARGE_SCRIPT]
    shipped = [*_alternatives(folder.artifacts), *folder.others, *([folder.script] if folder.script else []), *beside]
    sizes = sorted(((path.stat().st_size, folder.name(path)) for path in shipped), reverse=True)
    total = sum(size for size, _ in sizes)
    if total > rules.CAP_BYTES:
        largest = ", ".join(f"{file} {size:,}" for size, file in sizes[:4])
        said = f"{total:,} bytes lie in the folder, over the cap of {rules.CAP_BYTES:,}: {largest}"
        return failed(name, said, total=total)
    if not sizes:
        return not_applicable(name, "nothing lies there that a run could need: no script, artifact or other file")
    others = [folder.name(path) for path in [*folder.others, *beside]]
    told = f"{total:,} bytes of scripts, artifacts and other files"
    if not others:
        return passed(name, f"{total:,} bytes of script and artifacts, and no other files", total=total)
    if sum(path.stat().st_size for path in [*folder.others, *beside]) > SMALL_FILES:
        return look(name, f"files that nobody states: {', '.join(others[:6])}; {told} together", total=total)
    return passed(name, f"{told}; the others are {', '.join(others[:6])}", total=total)


def _alternatives(paths: tuple[Path, ...]) -> list[Path]:
    """Of files whose names differ in numbers alone (the artifacts of several seeds), the largest."""
    alike: dict[str, Path] = {}
    for path in paths:
        key = re.sub(r"\d+", "#", path.as_posix())
        if key not in alike or path.stat().st_size > alike[key].stat().st_size:
            alike[key] = path
    return list(alike.values())


def _named(logs: list[Log]) -> str:
    names = [log.name for log in logs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _counted(sizes: list[float] | list[int]) -> str:
    return ", ".join(dict.fromkeys(f"{size:,.0f}" for size in sizes[:4]))
