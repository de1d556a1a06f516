"""The model card of a run on the hub: what the model is, what it scores, what was checked, how it cuts text."""

from __future__ import annotations

from collections.abc import Sequence

from niblick import __version__
from niblick.challenge import rules
from niblick.challenge.tracks import UNWEIGHED
from niblick.facts.audits import ArtifactAudit
from niblick.recipes.presets import PRESETS
from niblick.submission.folder import Entry

FRONT = """\
---
library_name: niblick
pipeline_tag: text-generation
tags: [niblick, compression, language-model, {kind}]
---"""


def model_card(entry: Entry, audit: ArtifactAudit | None, pictures: Sequence[str], where: str, parameters: int) -> str:
    """Return the text of README.md; `where` is what the model is called where it is pushed to."""
    config, kind = entry.config, "byte-level" if entry.config.model.vocab_size <= 260 else "subword"
    about = (
        (PRESETS[config.preset].__doc__ or "").strip() if config.preset in PRESETS else "A recipe of its author's own."
    )
    sections = [
        FRONT.format(kind=kind),
        f"# {entry.run.name}",
        f"`{config.preset}`, {parameters:,} parameters, tokens `{config.tokenizer}`: {about}",
        _score(entry),
        _use(where),
    ]
    if pictures:
        cut = "\n".join(pictures)
        sections.append(f"## Chunks\n\nA sentence as the router of this artifact cuts it:\n\n```\n{cut}\n```")
    sections += [_audit(audit), _files()]
    return "\n\n".join(sections) + "\n"


def _score(entry: Entry) -> str:
    record, result = entry.record, entry.result
    code = UNWEIGHED if result.code_bytes is None else f"{result.code_bytes:,} bytes"
    rows = {
        "bits per byte": f"{record.bpb:.4f}, of the artifact file, by the scorer `{record.scorer}`",
        "text": f"{record.bytes:,} bytes held out, text hash `{str(record.text_hash)[:16]}`",
        "artifact": f"{entry.artifact.stat().st_size:,} bytes, as `{entry.config.export.name}`",
        "code": code,
        "cap": f"{rules.CAP_BYTES:,} bytes for both",
    }
    if record.bpb_repaired is not None and record.bpb_repaired != record.bpb:
        rows["bits per byte, repaired"] = f"{record.bpb_repaired:.4f}: the tokenizer loses text, and this pays for it"
    if result.train_seconds is not None:
        rows["training"] = f"{result.step:,} steps in {result.train_seconds:,.0f} s"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Score\n\n| | |\n| --- | --- |\n{table}"


def _use(where: str) -> str:
    return f"""## Use

    pip install niblick[hub]
    niblick generate {where} --prompt "The "
    niblick eval {where} --data DIR

```python
import niblick

model = niblick.load("{where}")
model.generate("The ")
model.bits_per_byte("The quick brown fox")
```"""


def _audit(audit: ArtifactAudit | None) -> str:
    if audit is None:
        return "## Audit\n\nThis artifact was not audited."
    rows = "\n".join(f"- {check.name}: {check.status}. {check.detail}".rstrip() for check in audit.checks)
    return f"## Audit\n\n`niblick audit` says *{audit.outcome}*.\n\n{rows}"


def _files() -> str:
    return (
        "## Files\n\n`artifact.nib` is the model as it is scored, in one file that runs no code. `model.safetensors` "
        "has the weights before they were packed, `config.json` the config, `score.json` the official score. "
        f"Made with niblick {__version__}."
    )
