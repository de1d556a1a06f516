"""The README of a submission: what was done, what it gave, how to do it again, what was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from niblick.challenge import rules
from niblick.config.run_config import dotted, to_dict
from niblick.recipes.presets import PRESETS
from niblick.submission.written import Written

if TYPE_CHECKING:
    from niblick.submission.folder import Submission

CREDITS = """\
- The rules, the baseline and the shards: OpenAI's Parameter Golf challenge.
- Dynamic chunking: Hwang, Wang and Gu, *Dynamic Chunking for End-to-End Hierarchical Sequence Modeling* (2025).
- Muon: Jordan et al. (2024).
- Made with niblick: `train_gpt.py` is its own code, as far as this config uses it;
  `train_gpt_readable.py` is the same program before it was packed."""


def readme(found: Submission, facts: Written, needed: str) -> str:
    """Return the text of README.md."""
    sections = [_head(found, facts), _approach(found), _results(found, facts)]
    if found.pictures:
        cut = "\n".join(found.pictures)
        sections.append(
            f"## Chunks\n\nThe published sentence as the router of this artifact cuts it:\n\n```\n{cut}\n```"
        )
    sections += [_reproduce(found, needed), _bytes(found, facts), _compliance(found), f"## Credits\n\n{CREDITS}"]
    return "\n\n".join(sections) + "\n"


def _head(found: Submission, facts: Written) -> str:
    lines = [f"# {facts.name}"]
    if found.about.author:
        lines.append(
            f"By {found.about.author}" + (f" (@{found.about.github_id})" if found.about.github_id else "") + "."
        )
    if found.about.blurb:
        lines.append(found.about.blurb)
    if facts.record:
        lines.append("Submitted to the record track: 600 s of training and 600 s of evaluation on 8×H100.")
    elif found.reasons:
        listed = "\n".join(f"- {reason}" for reason in found.reasons)
        lines.append(f"**Non-record.** It was submitted although\n\n{listed}")
    else:
        lines.append(f"Non-record: it was run on {_track(found.claim)}, not on the record track.")
    return "\n\n".join(lines)


def _track(name: str) -> str:
    return f"the track {name}" if name else "no track"


def _approach(found: Submission) -> str:
    config = found.entries[0].config
    base = PRESETS[config.preset]() if config.preset in PRESETS else None
    about = (PRESETS[config.preset].__doc__ or "").strip() if base else "A recipe of the author's own."
    own = dotted(to_dict(config))
    usual = dotted(to_dict(base)) if base else {}
    hidden = ("data.path", "train.device", "track", "seed", "preset")
    changed = [f"`{k}={v}`" for k, v in own.items() if base and usual.get(k) != v and k not in hidden]
    text = f"## Approach\n\n`{config.preset}`: {about}"
    if changed:
        text += f"\n\nDifferent from the preset: {', '.join(changed)}."
    return text + f"\n\nWeights are stored as `{config.export.name}`; scoring is `{config.score.scorer}`."


def _results(found: Submission, facts: Written) -> str:
    columns = ("seed", "val_loss", "val_bpb", "steps", "training", "evaluation", "artifact")
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for entry in found.entries:
        legal = entry.record.legality
        trained = "unknown" if legal.train_seconds is None else f"{legal.train_seconds:.1f} s"
        score = f"{entry.record.loss:.6f} | {entry.record.bpb:.6f} | {entry.result.step}"
        size = f"{entry.artifact.stat().st_size:,} bytes"
        rows.append(f"| {entry.config.seed} | {score} | {trained} | {legal.eval_seconds:.1f} s | {size} |")
    spread = facts.val_bpb_deviation
    mean = f"{facts.val_bpb_mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
    seeds = "seed" if len(found.entries) == 1 else "seeds"
    text = "## Results\n\n" + "\n".join(rows) + f"\n\nMean over {len(found.entries)} {seeds}: **{mean} BPB**"
    text += f", on {facts.hardware}. The artifact in this folder is that of seed {found.entries[0].config.seed}."
    if facts.pre_quant_val_bpb is not None:
        text += f" Its weights score {facts.pre_quant_val_bpb:.4f} before they are packed."
    if rule := found.verdict:
        wins = {True: "beats", False: "does not beat", None: "cannot be told to beat"}[rule.wins]
        p = "" if rule.p is None else f", p = {rule.p:.2g}"
        record = f"{rule.record_mean:.4f} BPB ({len(rule.record)} runs)"
        text += (
            f"\n\nAgainst the record of {record}: {rule.better} is better by "
            f"{rule.gain:.4f}{p}, and {wins} the other by the rule ({rule.reason})."
        )
    return text


def _reproduce(found: Submission, needed: str) -> str:
    packages = ", ".join(f"`{line}`" for line in needed.split())
    subwords = found.entries[0].config.model.vocab_size != 260
    path = "DATA_PATH=data" + (" TOKENIZER_PATH=data/tokenizers/NAME.model" if subwords else "")
    model = ", `TOKENIZER_PATH` the SentencePiece model that made them" if subwords else ""
    seed = found.entries[0].config.seed
    return f"""## How to reproduce

`DATA_PATH` is a folder with the shards `fineweb_train_*.bin` and `fineweb_val_*.bin`{model}.

    pip install -r requirements.txt
    {path} python train_gpt.py --eval     # scores final_model.nib
    {path} SEED={seed} torchrun --standalone --nproc_per_node=8 train_gpt.py     # trains, packs, scores

Requirements: {packages}. With niblick, `niblick audit` of this folder does the first two in a fresh environment without
network, and audits the artifact from outside."""


def _bytes(found: Submission, facts: Written) -> str:
    share = facts.bytes_total / rules.CAP_BYTES
    packed = f", packed from the {len(found.script.readable.encode()):,} of train_gpt_readable.py"
    largest = sorted(found.script.modules.items(), key=lambda item: -item[1])[:8]
    modules = ", ".join(f"{name.removeprefix('niblick.')} {size:,}" for name, size in largest)
    code = f"code {facts.bytes_code:,}{packed}"
    total = f"{facts.bytes_total:,} of {rules.CAP_BYTES:,} ({share:.1%})"
    text = f"{total}: artifact {facts.bytes_model_int8_zlib:,}, {code}. The largest parts of the code: {modules}."
    result = found.entries[0].result
    if result.packed_text and result.text_bytes:
        text += (
            f" {result.packed_text:,} of the artifact are {result.text_bytes:,} bytes of training text, packed, which "
        )
        text += "the scorer's mixture reads before it scores."
    return f"## Bytes\n\n{text}"


def _compliance(found: Submission) -> str:
    marks = {"pass": "x", "fail": " ", "not applicable": "-"}
    within = "x" if found.total <= rules.CAP_BYTES else " "
    rows = [f"- [{within}] code and artifact within {rules.CAP_BYTES:,} bytes"]
    for check in found.audit.checks if found.audit else ():
        status = "" if check.status == "pass" else f" ({check.status})"
        rows.append(f"- [{marks[check.status]}] {check.name}{status}: {check.detail}")
    if found.audit is None:
        rows.append("- [ ] not audited")
    return "## Compliance\n\nFrom niblick's audit of the artifact:\n\n" + "\n".join(rows)
