"""Audits put together: of a run or artifact, a function, a log, a script, a submission folder.

What is checked stands in `niblick.audit`; here the parts are fetched, and what needs a fresh process or the coder is
done. The audit of an artifact lies beside it as audit.json.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from niblick.artifact.container import Artifact, read_artifact
from niblick.audit import claims
from niblick.audit import text_checks as text
from niblick.audit.checks import Audit, Check, failed, look, not_applicable, passed
from niblick.audit.file_checks import audit_file
from niblick.audit.folders import folder_checks, read_folder
from niblick.audit.fresh import Fresh, constants, score_fresh, scored_beside
from niblick.audit.function_checks import Effort
from niblick.audit.functions import function_checks, sample_rows
from niblick.audit.model_checks import audit_model, cannot_step, exact
from niblick.audit.scorer_checks import Scorer, score_first, sums_to_one
from niblick.challenge import rules
from niblick.challenge.tracks import UNWEIGHED
from niblick.data.corpus import recorded_reading
from niblick.data.dataset import Dataset, Split
from niblick.data.documents import read_documents
from niblick.data.hub import PREFIX as HUB
from niblick.data.shards import file_hash
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError, NiblickError
from niblick.facts.audits import Subject
from niblick.facts.reading import plain
from niblick.facts.record import Record
from niblick.facts.scores import ScoreRecord
from niblick.files import read_json
from niblick.model.lm import LM
from niblick.run import artifacts, packing, prepared, scoring
from niblick.run.directory import Run, machine, write_json
from niblick.run.loading import declared_score, expect_tokenizer, known_text, load_artifact
from niblick.score import ttt
from niblick.score.coding import Layout, decode, encode, refuse_unprovable, worth_compiling
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import score_split
from niblick.submission import rerun as rerunning
from niblick.submission.forms import Form

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText

Say = Callable[[str], None]


PROOF = 0.005
"""Share by which the payload of a proof may differ from the score, apart from what opens its lanes and ends blocks."""
ENDING_BITS = 64
"""What the end of a block may cost: a coder writes whole words, which the first few bytes of a text notice."""

NO_CAGE = (
    "the folder's script is not run: there is no cage for it on this machine (install bubblewrap); "
    "--trust runs it as a program of yours"
)

KNOWN_TOKENS, ENOUGH_MEMORY = 1_024, 1
"""Tokens of an artifact's text that a scorer reads each time when it is checked, and MiB that are enough for them."""

SAMPLE_TOKENS = 16_384
"""Tokens on which arithmetics are compared."""


@dataclass(frozen=True)
class Options:
    """How much work an audit does."""

    effort: Effort = field(default_factory=Effort)
    prove: int = 0
    """Documents whose score is proved by decoding."""
    source: str = ""
    """The text that the data was made of, to tell copies from what the source repeats."""
    handling: rerunning.Handling | None = field(default_factory=rerunning.handling)
    """How the scripts of submissions are run; None: they are not, because there is no cage for them here."""
    train_bytes: int | None = 1 << 30
    """Training text that validation text is looked for in, at most; None: all of it."""


def audit(target: str, runs: Path, data: str = "", options: Options | None = None, say: Say | None = None) -> Audit:
    """Audit whatever `target` is. The audit of an artifact is written beside it as audit.json.

    Raises ConfigError if there is no such thing, or if the text that it needs is not named.
    """
    options, say = options or Options(), say or (lambda sentence: None)
    path = Path(target)
    if path.is_dir() and not (path / "config.json").is_file():
        return audit_folder(path, runs, data, options, say)
    if not target.startswith(HUB) and (found := audit_file(target)):
        return found
    module, _, name = target.rpartition(":")
    if module and not path.exists() and _is_function(module, name, runs):
        return Audit(target, "function", tuple(function_checks(module, name, data, options.effort)))
    artifact, run = artifacts.find_artifact(target, runs)
    if not data and run is not None:
        data = prepared.config_of(run).data.path
    if not data:
        read_artifact(artifact)  # whether it is one at all
        raise ConfigError(f"{target} names no text to audit it on: pass --data DIR, the data that it was trained on")
    with opened(artifact, run, data, options, say) as audited:
        about = Subject(
            artifact_sha256=file_hash(artifact),
            data=data,
            machine=machine(),
            score_sha256=scoring.record_digest(audited.record) if audited.record else None,
        )
        found = Audit(target, "artifact", tuple(all_checks(audited)), about)
    if not target.startswith(HUB):  # what was fetched lies in a cache, which is not ours
        write_json(artifact.parent / "audit.json", plain(found.record()))
    return found


# Submission folders


def audit_folder(folder: Path, runs: Path, data: str, options: Options, say: Say) -> Audit:
    """Audit a submission folder: its files are read, by themselves and beside each other, and then run again."""
    if options.handling is None:
        say(NO_CAGE)
    found = read_folder(folder)
    checks = folder_checks(found)
    data = data or (_data_of(found.form, runs) if found.form else "")
    checks.append(again := rerun(folder, found.form, data, options.handling, say))
    artifact = folder / "final_model.nib"
    if artifact.is_file() and data:
        with opened(artifact, None, data, options, say) as audited:
            checks += all_checks(audited)
            own = None if audited.fresh.failure else audited.fresh.bpb
        stated = found.form.bpb.value if found.form and found.form.bpb else None
        printed = again.facts.get("bpb")
        checks.append(claims.stated_score(stated, own, printed if isinstance(printed, float) else None))
    return Audit(str(folder), "submission", tuple(checks))


def _data_of(form: Form, runs: Path) -> str:
    """The text that a submission's first run was scored on, where that run lies in `runs`."""
    for seed in form.seeds:
        path = runs / seed.run / "config.json"
        if seed.run and path.is_file():
            return str(read_json(path)["data"]["path"])
    return ""


def rerun(folder: Path, form: Form | None, data: str, handling: rerunning.Handling | None, say: Say) -> Check:
    """Score a submission again in a fresh environment without network, with its own script."""
    name = "rerun"
    missing = [file for file in ("train_gpt.py", "final_model.nib") if not (folder / file).is_file()]
    missing += ["submission.json"] * (form is None)
    if missing or form is None:
        return not_applicable(name, f"it cannot be run again: {folder} has no {' and no '.join(missing)}")
    if form.bpb is None:
        return not_applicable(name, f"{form.path.name} states no score that could be made again")
    if not data:
        return not_applicable(name, "its score is not made again, because no text is named: pass --data DIR")
    if handling is None:
        return not_applicable(name, NO_CAGE)
    say(f"making a fresh environment, and scoring the artifact with the folder's own script {handling.told}")
    try:
        found = rerunning.rerun(folder, data, handling)
    except NiblickError as error:
        return failed(name, str(error))
    said = form.bpb.value
    off = found.bpb - said
    facts = {"bpb": found.bpb, "stated": said, "off": off, "how": found.how}
    told = f"{found.bpb:.6f} BPB in a fresh environment {found.how}; submission.json says {said:.6f}"
    return passed(name, told, **facts) if abs(off) <= rerunning.ENOUGH else failed(name, told, **facts)


# Functions


def _is_function(module: str, name: str, runs: Path) -> bool:
    if not name.isidentifier() or (runs / module).is_dir() or Path(module).is_dir():
        return False
    if module.endswith(".py"):
        return True
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
    finally:
        sys.path.pop(0)


# Artifacts


@dataclass(frozen=True)
class Audited:
    """An artifact on the text that it is scored on: all that a check may look at."""

    path: Path
    run: Run | None
    data: str
    artifact: Artifact
    model: LM
    whole: Dataset
    dataset: Dataset
    """What is scored of it: its validation split is what `score.documents` leaves."""
    config: ScoreConfig
    """The artifact's own scorer."""
    dtype: str
    """What it scores in."""
    record: ScoreRecord | None
    """The newest score of this text; None if there is none."""
    options: Options
    say: Say
    recipe: Path | None
    """The user's code that the model is made of."""
    text: KnownText | None
    """What is packed in the artifact."""
    scored: Future[Fresh] | None = None
    """What the fresh process that is at work beside the checks will have found."""

    @cached_property
    def fresh(self) -> Fresh:
        """What a fresh process finds, see `score_fresh`; one is asked now where none is at work."""
        if self.scored is None:
            return score_fresh(self.path, self.recipe, self.data, self.options.effort.tokens)
        if not self.scored.done():
            self.say("waiting for the fresh process's score")
        return self.scored.result()


def artifact_checks(path: Path, run: Run | None, data: str, options: Options, say: Say) -> list[Check]:
    """All checks of an artifact on a text."""
    with opened(path, run, data, options, say) as audited:
        return all_checks(audited)


@contextmanager
def opened(path: Path, run: Run | None, data: str, options: Options, say: Say) -> Iterator[Audited]:
    """Open an artifact as `open_audited` does, and have a fresh process score it while checks go on."""
    audited = open_audited(path, run, data, options, say)
    say("scoring the artifact again in a fresh process without network, while other checks go on")
    with scored_beside(path, audited.recipe, data, options.effort.tokens) as scored:
        yield replace(audited, scored=scored)


def open_audited(path: Path, run: Run | None, data: str, options: Options, say: Say) -> Audited:
    """Open an artifact and the text that it is scored on. Raises ConfigError if they do not fit."""
    if run is not None:
        prepared.config_of(run)
    model, artifact = load_artifact(path)
    whole = Dataset.open(data)
    expect_tokenizer(artifact, whole, path)
    if options.source:
        next(source_texts(options.source, whole), None)  # what cannot be read is told before the checks
    config, dtype = declared_score(artifact, path)
    dataset = prepared.scored_slice(whole, config)
    record = claims.last_score(path, dataset.val, config)
    text = known_text(artifact.text, model.config.vocab_size)
    recipe = run.recipe if run is not None and run.recipe.is_file() else None
    found = (artifact, model, whole, dataset, config, dtype, record, options, say, recipe, text)
    return Audited(path, run, data, *found)


def all_checks(audited: Audited) -> list[Check]:
    """All of ARTIFACT_CHECKS, and the proof where it is asked for."""
    return [check for checks in ARTIFACT_CHECKS for check in checks(audited)]


def _model(audited: Audited) -> list[Check]:
    audited.say("asking the model about changed, shuffled and padded text")
    bos_id = audited.dataset.tokenizer.bos_id
    ids_BL = sample_rows(audited.dataset.val, bos_id, audited.config.seq_len)
    return audit_model(audited.model, ids_BL, bos_id, audited.options.effort)


def _bytes(audited: Audited) -> list[Check]:
    audited.say("counting bytes again, and looking for validation text in training text")
    record = audited.record
    claimed = (record.bytes, record.lossless) if record else (None, None)
    if audited.dataset.val.byte_counts:
        return [given_bytes(audited.dataset.val, audited.dataset.tokenizer, claimed[0])]
    return [text.bytes_counted(audited.dataset.val, audited.dataset.tokenizer, *claimed)]


def given_bytes(split: Split, tokenizer: Tokenizer, claimed: int | None) -> Check:
    """Byte counts that lie beside the tokens: no more than the tokens decode to, and those of the score."""
    name = "bytes"
    counted = sum(int(counts.sum(dtype=np.int64)) for counts in split.byte_counts) - int(split.byte_counts[0][0])
    decoded = sum(len(tokenizer.decode(split.slice(*span))) for span in text.document_spans(split, tokenizer.bos_id))
    facts = {"bytes": counted, "decoded_bytes": decoded}
    if counted > decoded:
        said = f"the counts beside the tokens make {counted:,} bytes, and the tokens decode to {decoded:,}"
        return failed(name, said, **facts)
    if claimed is not None and claimed != counted:
        said = f"the score counts {claimed:,} bytes and the counts beside the tokens make {counted:,}"
        return failed(name, said, claimed=claimed, **facts)
    told = f"{counted:,} bytes by the counts beside the tokens, of {decoded:,} that these decode to"
    return look(name, f"{told}: what the text was before it was changed, nobody can see here", **facts)


def _scorer(audited: Audited) -> list[Check]:
    return scorer_checks(audited.model, audited.dataset, audited.config, audited.record, audited.text)


def _hygiene(audited: Audited) -> list[Check]:
    dataset = audited.whole
    source = source_texts(audited.options.source, dataset) if audited.options.source else None
    return [text.hygiene(dataset.train, dataset.val, dataset.tokenizer, source, audited.options.train_bytes)]


def source_texts(source: str, dataset: Dataset) -> Iterator[bytes]:
    """The documents of `source`, read as its manifest says that those of `dataset` were: by the same key and cuts."""
    return (document.text.encode() for document in read_documents(source, recorded_reading(dataset.manifest)))


def _text(audited: Audited) -> list[Check]:
    if audited.text is None:
        return []
    from niblick.audit.artifact_text import artifact_text  # which compiles: only where it is used

    audited.say("unpacking the artifact's text, and looking for validation text in it")
    return [artifact_text(audited.text, audited.whole)]


def _artifact(audited: Audited) -> list[Check]:
    path, fresh = audited.path, audited.fresh
    scored = scoring.scored_config(audited.artifact, audited.config, audited.dtype, audited.run, path)
    code = packing.weighed(path.stat().st_size, scored, audited.recipe).code_bytes
    named = constants(audited.recipe) if audited.recipe else []
    return [artifact_check(path, code, audited.record, fresh, named)]


def _windows(audited: Audited) -> list[Check]:
    return [audited.fresh.windows]


def _reproduction(audited: Audited) -> list[Check]:
    a = audited
    return [reproduction(a.model, a.dataset, a.config, a.dtype, a.record, a.fresh)]


def _claims(audited: Audited) -> list[Check]:
    a = audited
    return [
        claims.scores_agree(a.path, a.dataset.val, a.config, a.dtype, a.fresh.bpb),
        claims.result_agrees(a.path, a.run),
        claims.data_agrees(a.artifact, a.whole),
    ]


def _proof(audited: Audited) -> list[Check]:
    if not (count := audited.options.prove):
        return []
    audited.say(f"coding and decoding {count} document{'s' if count > 1 else ''}")
    return [prove(audited.model, audited.dataset, audited.config, count, audited.text)]


ARTIFACT_CHECKS: tuple[Callable[[Audited], list[Check]], ...] = (
    _model,
    _bytes,
    _scorer,
    _windows,
    _hygiene,
    _text,
    _artifact,
    _reproduction,
    _claims,
    _proof,
)
"""What an artifact is put to, in the order of the report."""


def scorer_checks(
    model: LM, dataset: Dataset, config: ScoreConfig, record: ScoreRecord | None, known: KnownText | None = None
) -> list[Check]:
    """Check the whole scorer on the beginning of the text, and the log of the recorded score.

    Of what the artifact has it read before, it reads the beginning too.
    """
    tokens = dataset.val.slice(0, min(dataset.val.tokens, 4 * config.seq_len + 1))
    learns = bool(config.ttt.optimizer)
    if learns:  # so that something is learned within so short a text
        stretch = max(1, len(tokens) // 4)
        config = replace(config, ttt=replace(config.ttt, chunk_tokens=stretch, step_tokens=stretch, max_seconds=None))
    if config.sidecar.name and known is not None:
        config = replace(config, sidecar=replace(config.sidecar, memory=min(config.sidecar.memory, ENOUGH_MEMORY)))
        known = known.beginning(KNOWN_TOKENS, config.sidecar)
    scorer = as_scorer(exact(model), dataset.tokenizer, replace(config, max_seconds=None), known)
    windows = range(config.seq_len, len(tokens), config.seq_len)
    checks = [score_first(scorer, tokens, model.config.vocab_size, windows)]
    if record is not None and checks[0].status == "pass":
        log = [ttt.Stretch(*line) for line in record.ttt_log]
        if record.tokens != dataset.val.tokens - 1:
            said = f"{record.tokens:,} targets were scored, and the split has {dataset.val.tokens - 1:,}"
            checks = [failed("score-first", said, scored=record.tokens, targets=dataset.val.tokens - 1)]
        elif not ttt.score_first(log):
            checks = [failed("score-first", "by its log, the score learned from text before that was scored")]
    if learns or config.sidecar.name:
        found = sums_to_one(scorer, tokens[: config.seq_len], model.config.vocab_size)
        checks.append(replace(found, name="normalization of the scorer"))
    return checks


def as_scorer(model: LM, tokenizer: Tokenizer, config: ScoreConfig, known: KnownText | None = None) -> Scorer:
    """The way an artifact is scored, as a function from the tokens of a stream to what each but the first costs."""

    def scorer(tokens: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
        nats = np.full(len(tokens) - 1, np.nan)

        def keep(first: int, nats_N: npt.NDArray[np.float64]) -> None:
            nats[first - 1 : first - 1 + len(nats_N)] = nats_N

        split = Split("val", [], [np.asarray(tokens)])
        settings = config if len(nats) >= config.seq_len else replace(config.plain(), sidecar=config.sidecar)
        score_split(model, split, tokenizer, settings, observe=keep, text=known)
        return nats

    return scorer


def artifact_check(
    path: Path,
    code: int | None,
    record: ScoreRecord | None,
    fresh: Fresh,
    named: Sequence[tuple[str, int, int]] = (),
) -> Check:
    """Self-contained, under the cap with its code, and within the time limits where the record claims the track.

    `named` are long constants in the recipe's code: (file, line, bytes).
    """
    name, size = "artifact", path.stat().st_size
    total = size + (code or 0)
    weight = UNWEIGHED if code is None else f"{code:,} of code"
    if (wanted := _wanted(fresh)) is not None:
        return wanted
    if total > rules.CAP_BYTES:
        what = f"{size:,} bytes without the code" if code is None else f"{size:,} bytes and {weight}"
        return failed(name, f"{what} are over the cap of {rules.CAP_BYTES:,}", total=total)
    legal = record.legality if record else None
    if legal and not legal.reasons:
        for what, seconds, limit in (
            ("train_seconds", legal.train_seconds, rules.TRAIN_SECONDS),
            ("eval_seconds", legal.eval_seconds, rules.EVAL_SECONDS),
        ):
            if seconds is None or seconds > limit:
                return failed(name, f"the record track is claimed with {what} of {seconds}, over {limit}")
    share = f"{'at least ' if code is None else ''}{total / rules.CAP_BYTES:.1%} of the cap"
    return passed(
        name,
        f"{size:,} bytes and {weight}, {share}; scoring reads nothing but artifact, code and text, and no network"
        + "".join(f"; {where} line {line} holds {count:,} bytes of constants" for where, line, count in named[:3]),
        artifact_bytes=size,
        code_bytes=code,
        total_bytes=None if code is None else total,
    )


def _wanted(fresh: Fresh) -> Check | None:
    """The check that fails if scoring needs something that nobody counts."""
    name = "artifact"
    if fresh.foreign:
        what = f"scoring reads {fresh.foreign[0]}, which is neither artifact, code nor the text: it is not counted"
        return failed(name, what, files=list(fresh.foreign[:8]))
    if fresh.strange:
        what = f"scoring imports {fresh.strange[0]}, which niblick does not require: what is in it is not counted"
        return failed(name, what, packages=list(fresh.strange[:8]))
    if fresh.network:
        return failed(name, f"scoring wants the network: {fresh.network[0]}", calls=list(fresh.network[:8]))
    if fresh.processes:
        what = f"scoring starts another process: {fresh.processes[0]}"
        return failed(name, what, calls=list(fresh.processes[:8]))
    if fresh.failure:
        what = "in an empty folder with an empty environment, artifact and recipe alone cannot be scored"
        return failed(name, f"{what}: {fresh.failure}")
    return None


def reproduction(
    model: LM,
    dataset: Dataset,
    config: ScoreConfig,
    dtype: str,
    record: ScoreRecord | None,
    fresh: Fresh,
) -> Check:
    """The score repeats, and how far other arithmetics are from it; router decisions on a knife-edge are counted."""
    name = "reproduction"
    if fresh.failure:
        return failed(name, f"the score cannot be made again: {fresh.failure}")
    found = arithmetics(model, dataset, config)
    facts: dict[str, object] = {"bpb_fresh": fresh.bpb, "knife_edges": fresh.knife_edges, "bpb": None}
    facts |= plain(found)
    edges = f"{fresh.knife_edges:,} of {fresh.decisions:,} router decisions on a knife-edge"
    apart = ", ".join(f"{key} {value:+.2e}" for key, value in found.apart.items())
    beside = f"{edges}; BPB on {found.sample_tokens:,} tokens against float32: {apart}"
    if record is None:
        return passed(name, f"no score is recorded; a fresh process gives {fresh.bpb:.6f} BPB; {beside}", **facts)
    same = record.machine == machine() and record.scorer.dtype == dtype
    limit, off = (claims.SAME if same else claims.ALIKE), fresh.bpb / record.bpb - 1
    facts |= {"bpb": record.bpb, "off": off}
    if not abs(off) <= limit:
        return failed(
            name,
            f"the record says {record.bpb:.6f} BPB and a fresh process gives {fresh.bpb:.6f} ({off:+.2e})",
            **facts,
        )
    return passed(name, f"{fresh.bpb:.6f} BPB again in a fresh process ({off:+.1e}); {beside}", **facts)


@dataclass(frozen=True, kw_only=True)
class Arithmetics(Record):
    """BPB of the beginning of the text in several arithmetics."""

    sample_tokens: int
    arithmetics: Mapping[str, float]
    apart: Mapping[str, float]
    """How far each is from float32."""


def arithmetics(model: LM, dataset: Dataset, config: ScoreConfig) -> Arithmetics:
    """Score the beginning of the text in float32 and bfloat16, on the CPU and a GPU if there is one."""
    count = min(dataset.val.tokens, max(SAMPLE_TOKENS, config.seq_len + 1))
    part = replace(dataset, val=dataset.val.part(0, count))
    usual = config.plain()
    device = next(model.parameters()).device
    bpb = {}
    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for dtype in ("float32", "bfloat16"):
            key = f"{kind} {dtype}" if kind != "cpu" else dtype
            bpb[key] = scoring.score_model(model.to(kind), part, usual, dtype).bpb
    model.to(device)
    apart = {key: value - bpb["float32"] for key, value in bpb.items() if key != "float32"}
    return Arithmetics(sample_tokens=count, arithmetics=bpb, apart=apart)


# Proof by decoding


def prove(model: LM, dataset: Dataset, config: ScoreConfig, documents: int, known: KnownText | None = None) -> Check:
    """Code the first documents of the validation text with the model, decode them again, and compare with the score."""
    name = "proof"
    try:
        refuse_unprovable(config)
    except ConfigError as error:
        return not_applicable(name, str(error))
    if why := cannot_step(model):
        return not_applicable(name, f"this score is not provable by decoding: {why}")
    spans = text.document_spans(dataset.val, dataset.tokenizer.bos_id)
    count = min(documents, len(spans))
    end = sum(spans[count - 1])
    tokens = np.array(dataset.val.slice(0, end), np.uint16)
    begin_D = np.array([offset for offset, _ in spans[:count]], np.int64)
    compiled = worth_compiling(len(tokens), config)
    plan = Layout(len(tokens), begin_D, config, dataset.tokenizer.bos_id, model.config.vocab_size, compiled)
    model = model.cpu().float()
    blocks = list(encode(model, tokens, plan, text=known))
    back = decode(model, iter(blocks), plan, text=known)
    score = score_split(model, dataset.val.part(0, end), dataset.tokenizer, config, text=known)
    bits = 8 * sum(len(block.data) for block in blocks)
    opening = plan.opening_bits()
    off = (bits - opening) / score.bits - 1
    facts = {"documents": count, "bytes": score.bytes, "payload_bits": bits, "opening_bits": opening}
    facts |= {"score_bits": score.bits, "off": off, "payload_bpb": bits / score.bytes, "score_bpb": score.bpb}
    several = f"{count} documents" if count > 1 else "1 document"
    said = f"{several} of {score.bytes:,} bytes became {bits // 8:,} bytes, {bits / score.bytes:.4f} bits per byte"
    share = f"{off:+.2%} of the score's {score.bpb:.4f}, {opening / 8:,.0f} bytes that open lanes apart"
    if not np.array_equal(back, tokens):
        return failed(name, f"{said}, but decode to something else", **facts)
    if abs(bits - opening - score.bits) > PROOF * score.bits + ENDING_BITS * len(blocks):
        return failed(name, f"{said}, {share}", **facts)
    return passed(name, f"{said} ({share}), and decode to the same text", **facts)
