"""The soft chunker's open questions: larger, regularized, started from BPE edges, hard; by tokenizer and by domain."""

from __future__ import annotations

from pathlib import Path

from niblick.data.dataset import Dataset
from niblick.data.subwords import SentencePieceTokenizer
from niblick.studies.study import Done, Lab, Parts, Table

WIDE = str(Path(__file__).with_name("wide_soft.py"))
VARIANTS = {
    "none": ["baseline-sp1024"],
    "default": ["soft-chunker-sp1024"],
    "large": [WIDE],
    "regularized": ["soft-chunker-sp1024", "model.levels.0.ratio_weight=0.1"],
    "bpe-start": ["soft-chunker-sp1024"],
    "hard": [
        *("soft-chunker-sp1024", "model.levels.0.router=cosine", "model.levels.0.ratio_weight=0.03"),
        *("model.levels.0.target_length=4", "model.levels.0.lr_diff=0.75"),
    ],
}
VOCABULARIES = {"byte260": 260, "sp1024": 1024, "sp4096": 4096}
DOMAINS = ("prose", "code", "multilingual")


def softchunk(lab: Lab) -> Parts:
    """The soft chunker on bytes and subwords, on prose, code and many languages."""
    places = {
        (variant, tokenizer, domain): f"{variant}-{tokenizer}-{domain}"
        for domain in DOMAINS
        for tokenizer in VOCABULARIES
        for variant in VARIANTS
        if lab.has(domain) and _wanted(lab, variant, tokenizer, domain)
    }
    points = {name: _settings(lab, *place) for place, name in places.items()}
    branch = {name: f"soft-{place[0]}" for place, name in places.items()}
    found = lab.run("baseline-sp1024", points, branch=branch)
    tables = [_table(places, found, domain) for domain in DOMAINS if lab.has(domain)]
    left_out = [domain for domain in DOMAINS if not lab.has(domain)]
    if left_out:
        tables[-1] = Table(
            tables[-1].title,
            tables[-1].columns,
            tables[-1].rows,
            f"{tables[-1].note} No text was given for: {', '.join(left_out)}.",
        )
    yield tables, [done[0] for done in found.values()]


def _wanted(lab: Lab, variant: str, tokenizer: str, domain: str) -> bool:
    """BPE edges are places between bytes; at toy size the other domains are tried on bytes alone."""
    if variant == "bpe-start" and tokenizer != "byte260":
        return False
    return not lab.toy or domain == "prose" or tokenizer == "byte260"


def _settings(lab: Lab, variant: str, tokenizer: str, domain: str) -> list[str]:
    settings = [*VARIANTS[variant], f"tokenizer={tokenizer}", f"model.vocab_size={VOCABULARIES[tokenizer]}"]
    settings += [f"data.path={lab.data(tokenizer, domain)}", f"model.main.layout=T{2 if lab.toy else 9}"]
    if variant == "bpe-start":
        model = _model_file(lab.data("sp1024"))
        settings += [f"train.init_from=bpe:{model}", f"train.init_steps={10 if lab.toy else 500}"]
    return settings


def _model_file(data: str) -> Path:
    """The SentencePiece model of a dataset."""
    dataset = Dataset.open(data)
    assert isinstance(dataset.tokenizer, SentencePieceTokenizer)
    return dataset.directory.parent.parent / dataset.tokenizer.spec()["model_path"]


def _table(places: dict[tuple[str, str, str], str], found: dict[str, list[Done]], domain: str) -> Table:
    rows = []
    for (variant, tokenizer, own), name in places.items():
        if own != domain:
            continue
        done, without = found[name][0], found[places["none", tokenizer, domain]][0]
        against = "" if variant == "none" else f"{done.bpb - without.bpb:+.4f}"
        rows.append(
            [
                tokenizer,
                variant,
                f"{done.bpb:.4f}",
                against,
                f"{done.result.artifact_bytes:,}",
                f"{done.milliseconds:.1f}",
            ]
        )
    columns = ["tokenizer", "chunker", "BPB", "against none", "bytes", "ms per step"]
    return Table(f"On {domain}", columns, rows, "Against none: the same model without chunker, on the same tokens.")
