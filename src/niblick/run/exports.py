"""More artifacts of a finished run: other schemes, fits to a cap, what each tensor costs, and how large it will be.

Everything that is measured on the way (sensitivities, candidates of a fit) is measured on training text; the validation
split is only read by the official score, of the file read back in a fresh process.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.codecs import get_codec
from niblick.artifact.container import artifact_bytes
from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.packed_text import PackedText
from niblick.challenge import rules
from niblick.config.run_config import RunConfig, override
from niblick.data.dataset import Dataset
from niblick.data.tokenizers import BYTE_TOKENIZERS
from niblick.errors import ConfigError
from niblick.facts.events import Emit, Event, Trouble
from niblick.facts.reading import write_file
from niblick.facts.record import Record
from niblick.facts.result import Calibration, ExportFacts, Result
from niblick.pack.export_config import ExportConfig
from niblick.pack.fit import LADDER, Fit, Rounder, Telling, fit, fitted_export
from niblick.pack.hessians import SEED, Hessians, calibration_batches
from niblick.pack.quantize import pack, quantize, schemes_of
from niblick.pack.schemes import Scheme
from niblick.pack.sensitivity import Evaluate, Sensitivities, sensitivities
from niblick.run.directory import Run, check_name
from niblick.run.division import divide
from niblick.run.kept import expect_refit, kept_export
from niblick.run.loading import build_model
from niblick.run.packing import (
    artifact_header,
    calibrated,
    closure_bytes,
    export,
    packed,
    smaller_by_zlib,
    told,
    weighed,
    with_text,
    write_export,
)
from niblick.run.prepared import config_of, expect_reader, open_data
from niblick.run.scoring import official_score, result_of, scored
from niblick.train.checkpoint import read_tensors
from niblick.train.precision import autocast, pick_device

MEASURE_TOKENS = 65_536
"""Tokens of training text that sensitivities and candidates of a fit are measured on."""


def finished(run: Run) -> RunConfig:
    """Return the config of a run that has weights. Raises ConfigError if it has none yet."""
    config = config_of(run)
    if not run.weights.is_file():
        raise ConfigError(f"{run.path} has no final weights yet: go on with `niblick train --resume {run.path}`")
    return config


def with_export(config: RunConfig, assignments: list[str]) -> RunConfig:
    """Apply `scheme=…`, `codec=…`, `gptq=…`: keys of the export; and `score.…`, how the artifact is to be scored.

    Raises ConfigError as `config.override` does.
    """
    return override(config, [a if a.startswith(("export.", "score.")) else f"export.{a}" for a in assignments])


def export_run(run: Run, assignments: list[str], listen: Emit, name: str = "") -> Result:
    """Pack the weights of a finished run anew and score the file in a fresh process.

    What was packed and scored in the same way before stays as it is. Raises ConfigError, before anything is done, for
    the name of an artifact that was made otherwise, as the official one.
    """
    own = finished(run)
    config = with_export(own, assignments)
    name = name or config.export.name
    check_name(name, "an artifact")
    if (kept := kept_export(run, name, own, config)) is not None:
        return kept
    facts = export(run, config, open_data(config), lambda event: _tell(run, event, listen), name)
    return _scored(run, name, facts, listen)


def _tell(run: Run, event: Event, listen: Emit) -> None:
    run.log(event)
    listen(replace(event, run=str(run.path)))


def _scored(run: Run, name: str, facts: ExportFacts, listen: Emit) -> Result:
    record = official_score(run, name)
    _tell(run, scored(record, name), listen)
    return result_of(run, name, facts, record)


def evaluator(config: RunConfig, dataset: Dataset, tokens: int = MEASURE_TOKENS) -> Evaluate:
    """Return what gives the BPB of float weights on windows from all over the training split."""
    device = pick_device(config.train.device)
    model = build_model(config.model, seed=0).to(device).eval()
    windows = calibration_batches(
        dataset.train,
        dataset.val,
        vocab_size=config.model.vocab_size,
        seq_len=config.score.seq_len + 1,  # so that every window has its last target
        tokens=tokens,
        seed=SEED + 1,  # not the windows that weights were calibrated on
    )
    lengths = [dataset.tokenizer.token_bytes(w[:, :-1].numpy(), w[:, 1:].numpy()).sum() for w in windows]
    count = int(sum(lengths))

    def bpb(state: Mapping[str, Tensor]) -> float:
        model.load_state_dict(dict(state))
        nats = 0.0
        with torch.no_grad(), autocast(device, config.train.dtype):
            for ids_BL in windows:
                ids_BL = ids_BL.to(device)
                hidden_BLD, _ = model.hidden(ids_BL[:, :-1])
                nats += float(model.token_losses(hidden_BLD, ids_BL[:, 1:]).double().sum())
        return nats / math.log(2) / count

    return bpb


def expect_tokens(tokens: int) -> None:
    """Raise ConfigError for a number of tokens that nothing can be measured on."""
    if tokens < 1:
        raise ConfigError(f"nothing can be measured on {tokens} tokens of training text: give --tokens, at least 1")


def sensitivity_run(
    run: Run,
    assignments: list[str],
    *,
    tokens: int = MEASURE_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivities:
    """Measure what the export of a finished run costs, tensor by tensor. Raises ConfigError for no `tokens`."""
    expect_tokens(tokens)
    config = with_export(finished(run), assignments)
    if config.export.permute:
        raise ConfigError("export.permute moves weights, so they cannot be swapped one by one: leave it out here")
    dataset = open_data(config)
    state, _ = read_tensors(run.weights)
    encoded, _ = packed(config, state, dataset)
    return sensitivities(state, encoded, config.export.codec, evaluator(config, dataset, tokens), progress)


@dataclass(frozen=True, kw_only=True)
class FitFacts(Record):
    """What a fit tried: fit.json."""

    cap: int
    codec: str
    gptq: bool
    tokens: int
    """Of training text that candidates were measured on."""
    bits: Mapping[str, float]
    """Of each tensor."""
    probe: Mapping[str, float]
    frontier: tuple[Mapping[str, object], ...] = ()
    divisions: tuple[Mapping[str, object], ...] = ()
    """Between text and weights, see `division`; the best first."""


@dataclass(frozen=True)
class Fitted:
    """The artifact that a fit found, scored, and what it tried."""

    result: Result
    details: FitFacts


def fit_run(
    run: Run,
    listen: Emit,
    assignments: Sequence[str] = (),
    *,
    cap: int | None = None,
    artifact: int | None = None,
    codec: str = "range",
    gptq: bool = True,
    tokens: int = MEASURE_TOKENS,
    ladder: tuple[float, ...] = LADDER,
    telling: Telling | None = None,
) -> Fitted:
    """Find the best weights for a cap on code and artifact together, or on the `artifact` alone, and score them.

    Where `export.text` wants text in the artifact, as much of it is taken as pays: see `division`. Writes the artifact
    `fit-<bytes>` and, beside it, fit.json: bits of each tensor, the frontier, and what else was tried. Code is counted
    as what reads the artifact. Raises ConfigError for keys of the export that a fit settles itself.
    """
    config = with_export(finished(run), list(assignments))
    expect_tokens(tokens)
    if not 0 < (given := next((n for n in (cap, artifact) if n is not None), rules.CAP_BYTES)) < 2**63:
        raise ConfigError(f"{given:,} bytes are no cap: give at least 1, and fewer than 2**63")
    _expect_unsettled(assignments)
    expect_reader(config)
    get_codec(codec)
    if artifact is None:
        needed = replace(config, export=fitted_export(config.export, codec, gptq))
        code = closure_bytes(needed, run.recipe if run.recipe.is_file() else None) + LONGER_NUMBERS
        artifact = (cap if cap is not None else rules.CAP_BYTES) - code
        if artifact < 1:
            raise ConfigError(f"the code alone takes {code:,} bytes: give a cap above that, or --artifact-bytes")
    room = artifact
    expect_refit(run, f"fit-{room}", codec)
    dataset = open_data(config)
    state, _ = read_tensors(run.weights)
    header = artifact_header(config, dataset.tokenizer.spec(), dataset.train.text_hash)
    started, telling = time.perf_counter(), telling or Telling()
    hessians: Hessians | None = None
    calibration = Calibration()
    if gptq:
        telling.say(f"calibrating on {config.export.calibration_tokens:,} tokens of training text")
        hessians, calibration = calibrated(config, state, dataset)

    def round_tensor(name: str, weights: Tensor, scheme: Scheme) -> EncodedTensor:
        hessian = (hessians or {}).get(name)
        return quantize(name, weights, scheme, hessian=hessian, damping=config.export.damping)

    evaluate = evaluator(config, dataset, tokens)
    probe: dict[str, float] = {}

    def fitted(size: int, text: PackedText | None = None, ladder: tuple[float, ...] = (), tell: bool = False) -> Fit:
        found = fit(
            _once(state),
            size,
            evaluate,
            lambda encoded: len(artifact_bytes(header, encoded, codec, text)),
            rounding=Rounder(round_tensor, hessians),
            ladder=ladder,
            told=telling if tell or not probe else None,
            probe=probe,
        )
        probe.update(found.probe)
        return found

    divisions = divide(config, dataset, room, fitted, telling) if config.export.text else ()
    if divisions and divisions[0].share < 1:
        config = override(config, [f"export.text={divisions[0].text_bytes}"])
    text, calibration = with_text(config, dataset, calibration)
    found = fitted(room, text, ladder, tell=True)
    name = f"fit-{room}"
    seconds = time.perf_counter() - started  # all of it learns from training text
    calibration = replace(calibration, calibration_seconds=seconds)
    config = replace(config, export=fitted_export(config.export, codec, gptq, found))
    facts = replace(write_export(run, config, dataset, found.encoded, name, codec, calibration, text), cap=room)
    _tell(run, told(facts, name), listen)
    if why := smaller_by_zlib(found.encoded, codec):
        _tell(run, Trouble(kind="codec", message=why), listen)
    details = FitFacts(
        cap=room,
        codec=codec,
        gptq=gptq,
        tokens=tokens,
        bits=found.bits,
        probe=found.probe,
        frontier=tuple(asdict(point) for point in found.frontier),
        divisions=tuple(asdict(division) for division in divisions),
    )
    result = _scored(run, name, facts, listen)
    write_file(run.artifact(name).parent / "fit.json", details)
    return Fitted(result, details)


SETTLED = ("scheme", "rules", "codec", "prune", "gptq", "permute", "residual")
"""Keys of the export that a fit finds, or that are arguments of its own."""


def _expect_unsettled(assignments: Sequence[str]) -> None:
    for assignment in assignments:
        key = assignment.partition("=")[0].removeprefix("export.")
        if key.partition(".")[0] in SETTLED:
            advice = f"use --{key}" if key in ("codec", "gptq") else "leave it out, or use `niblick export`"
            raise ConfigError(f"{key} is what a fit settles by itself: {advice}")


def _once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out further names of the same memory, as packing does."""
    return {name: state[name] for name in schemes_of(state, ExportConfig("fp32"))}


# How large will it be?

SPREADS = {"low": (0.10, 0.60), "high": (0.45, 0.0)}
"""Root mean square of a matrix, and deviation of the logarithms of its rows' and columns' sizes: what trained matrices
lie between (tests/run/test_exports.py holds it on trained models). The wider the rows and columns are spread, the fewer
bits codes take whose scale is the largest of a row."""
EMBED_FACTOR = 3.0
"""Embeddings are trained to so much larger values."""
SAMPLE = 1 << 18
"""Weights of a tensor that are really packed and coded; the rest counts in proportion."""


LONGER_NUMBERS = 64
"""Bytes that a script may take more for being of a wider or deeper model: it holds the config."""


@dataclass(frozen=True)
class SizeEstimate:
    """Bytes of an artifact before its training: of `low` and `high` weights, and of the code beside it."""

    low: int
    high: int
    code: int | None
    """None where the code could not be weighed."""
    parameters: int


@dataclass(frozen=True)
class Proposal(SizeEstimate):
    """A larger model that fits, and how large its artifact will be."""

    grow: str
    """What was made larger: width or depth."""
    overrides: list[str]
    """What makes it so."""


def predict_size(config: RunConfig, recipe: Path | None = None, code: int | None = None) -> SizeEstimate:
    """Pack made-up weights of this model, of two kinds that trained ones lie between, and weigh them.

    `code` are the bytes of its script, where they are known.
    """
    model = build_model(config.model, seed=0)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tokenizer = {"name": config.tokenizer, "vocab_size": config.model.vocab_size}
    if config.tokenizer in BYTE_TOKENIZERS:
        tokenizer = BYTE_TOKENIZERS[config.tokenizer]().spec()
    sizes = {}
    for kind in SPREADS:
        made = {n: _made_up(n, t, kind) for n, t in _once(state).items()}
        encoded = pack({n: t for n, (t, _) in made.items()}, _without_gptq(config.export))
        payload = sum(_coded_bytes(config.export.codec, e) * made[n][1] for n, e in encoded.items())
        empty = {n: replace(e, parts={}, shape=(0,)) for n, e in encoded.items()}
        frame = len(artifact_bytes(artifact_header(config, tokenizer, "0" * 64), empty, "zlib"))
        sizes[kind] = round(payload + frame) + config.export.residual.bytes
    parameters = sum(p.numel() for p in model.parameters())
    code = weighed(0, config, recipe).code_bytes if code is None else code
    return SizeEstimate(min(sizes.values()), max(sizes.values()), code, parameters)


def _without_gptq(config: ExportConfig) -> ExportConfig:
    """GPTQ rounds to the same grid, so it hardly changes the bytes; residuals are counted apart."""
    return replace(config, gptq="off", permute=False, residual=type(config.residual)())


def _coded_bytes(codec: str, tensor: EncodedTensor) -> int:
    """Bytes of a tensor under a codec; of many that are made up alike, one is coded."""
    parts, coder = [*tensor.parts.values()], get_codec(codec)
    facts = ((part.dtype.str, part.shape, hashlib.sha256(part.tobytes()).digest()) for part in parts)
    key = (codec, type(coder), *facts)  # its class, too: in a notebook a codec is written anew under its name
    if key not in _coded:
        _coded[key] = len(coder.encode(parts))
    return _coded[key]


_coded: dict[tuple[object, ...], int] = {}


def _made_up(name: str, tensor: Tensor, kind: str) -> tuple[Tensor, float]:
    """Return weights for a tensor, at most `SAMPLE` of whole rows, and how many times they stand for themselves.

    They are the same for every tensor of a shape, so that they are coded once.
    """
    if tensor.ndim < 2:
        return tensor, 1.0
    size, spread = SPREADS[kind]
    rows = max(1, min(len(tensor), SAMPLE // max(1, tensor[0].numel())))
    generator = np.random.default_rng(0)
    made = generator.standard_normal((rows, *tensor.shape[1:])) * size * (EMBED_FACTOR if "embed" in name else 1.0)
    for axis in (0, 1):
        shape = [n if i == axis else 1 for i, n in enumerate(made.shape)]
        made *= np.exp(spread * generator.standard_normal(shape) - spread**2)
    return torch.from_numpy(made.astype(np.float32)), len(tensor) / rows


def fill_cap(config: RunConfig, cap: int, recipe: Path | None = None) -> list[Proposal]:
    """Propose the largest width, and the largest depth of the main stage, whose artifact surely fits the cap.

    Fewer where nothing fits.
    """
    proposals = []
    code = closure_bytes(config, recipe) + LONGER_NUMBERS
    head_width = config.model.width // config.model.heads
    for what, now in (("width", config.model.heads), ("depth", len(_letters(config.model.main.layout)))):

        def fits(count: int, what: str = what) -> Proposal | None:
            assignments = _grown(config, what, count, head_width)
            size = predict_size(override(config, assignments), recipe, code)
            fitting = size.high + code <= cap
            return Proposal(**vars(size), grow=what, overrides=assignments) if fitting else None

        low, high, best = 0, now, None  # how many heads, or blocks: bytes grow with either
        while found := fits(high):
            low, high, best = high, 2 * high, found
        while low + 1 < high:
            middle = (low + high) // 2
            if found := fits(middle):
                low, best = middle, found
            else:
                high = middle
        if best:
            proposals.append(best)
    return proposals


def _letters(layout: str) -> str:
    """A layout with its counts written out: T2c1 is TTc."""
    return "".join(letter * int(count or 1) for letter, count in re.findall(r"([A-Za-z])(\d*)", layout))


def _grown(config: RunConfig, what: str, count: int, head_width: int) -> list[str]:
    if what == "depth":
        letters = _letters(config.model.main.layout)
        return [f'model.main.layout="{(letters * (count // len(letters) + 1))[:count]}"']
    kv_heads = math.gcd(count, config.model.kv_heads)
    return [f"model.width={count * head_width}", f"model.heads={count}", f"model.kv_heads={kv_heads}"]
