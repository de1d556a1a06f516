"""Packing: weights as they are stored, the artifact that holds them, and what artifact and code weigh."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from niblick.artifact.container import artifact_bytes, save_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.packed_text import PackedText
from niblick.bundle import make_script
from niblick.challenge.rules import CAP_BYTES
from niblick.config.run_config import (
    RunConfig,
    reads_another_file,
    to_dict,
)
from niblick.data.dataset import Dataset
from niblick.errors import ConfigError, NiblickError
from niblick.facts.events import Emit, Export, Trouble
from niblick.facts.reading import merged, plain, read, read_file, write_file
from niblick.facts.result import Calibration, Clocks, ExportFacts
from niblick.facts.scores import Sizes
from niblick.files import parse_json
from niblick.pack.export_config import ExportConfig
from niblick.pack.hessians import Hessians, calibrate, calibrate_quantized, calibration_batches
from niblick.pack.permute import permuted
from niblick.pack.quantize import pack
from niblick.run.directory import Run
from niblick.run.loading import build_model
from niblick.run.prepared import expect_reader
from niblick.train.checkpoint import read_metadata, read_tensors
from niblick.train.precision import autocast, pick_device

_TOLD = ("artifact_bytes", "code_bytes", "total_bytes", "export_seconds")


def export(run: Run, config: RunConfig, dataset: Dataset, emit: Emit, name: str = "") -> ExportFacts:
    """Pack the final weights of a run into its artifact. Returns what it weighs and what packing took."""
    started = time.perf_counter()
    tensors, _ = read_tensors(run.weights)
    encoded, calibration = packed(config, tensors, dataset)
    text, calibration = with_text(config, dataset, calibration)
    name = name or config.export.name
    facts = write_export(run, config, dataset, encoded, name, config.export.codec, calibration, text)
    facts = replace(facts, export_seconds=time.perf_counter() - started)
    emit(told(facts, name))
    if why := facts.code_not_weighed:
        emit(Trouble(step=clocks_of(run).step or 0, kind="code", message=f"code not weighed: {why}"))
    if why := smaller_by_zlib(encoded, config.export.codec):
        emit(Trouble(step=clocks_of(run).step or 0, kind="codec", message=why))
    return facts


def smaller_by_zlib(encoded: Mapping[str, EncodedTensor], codec: str) -> str:
    """A sentence where the published codec would take fewer bytes for these tensors than the one chosen; else empty."""
    if codec == "zlib":
        return ""
    fewer = len(artifact_bytes({}, encoded, codec)) - len(artifact_bytes({}, encoded, "zlib"))
    return f"codec={codec} takes {fewer:,} bytes more than codec=zlib would: choose that" if fewer > 0 else ""


def told(facts: ExportFacts, name: str) -> Export:
    """Return the event that an artifact was written."""
    return Export(
        name=name,
        artifact_bytes=facts.artifact_bytes,
        code_bytes=facts.code_bytes,
        total_bytes=facts.total_bytes,
        export_seconds=facts.export_seconds,
        extra={key: value for key, value in plain(facts).items() if key not in _TOLD},
    )


def clocks_of(run: Run) -> Clocks:
    """How long a run trained, as its weights say; an import's say nothing."""
    return read(Clocks, parse_json(read_metadata(run.weights).get("clocks", "{}")), str(run.weights))


def write_export(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    encoded: dict[str, EncodedTensor],
    name: str,
    codec: str,
    calibration: Calibration,
    text: PackedText | None = None,
) -> ExportFacts:
    """Write tensors as the artifact `name` of a run, and export.json beside it. Returns what that says.

    These are what `weighed` says, and the facts about its `calibration`, whose seconds count as training. Raises
    ConfigError, before anything is written, for a text that does not fit under the cap.
    """
    header = artifact_header(config, dataset.tokenizer.spec(), dataset.train.text_hash)
    data = artifact_bytes(header, encoded, codec, text)
    sizes = weighed(len(data), config, run.recipe if run.recipe.is_file() else None)
    if text is not None:
        expect_room(text, len(data), sizes.code_bytes or 0)
    path = run.artifact(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_artifact(path, data)
    facts = merged(ExportFacts, sizes, calibration)
    write_file(path.with_name("export.json"), replace(facts, export=to_dict(config.export)))
    return facts


def expect_room(text: PackedText, artifact: int, code: int) -> None:
    """Raise ConfigError if an artifact of so many bytes, with its text, and its code are over the cap."""
    room = CAP_BYTES - code - artifact + len(text.data)
    if len(text.data) > room:
        fits = max(0, int(0.95 * text.bytes * room / len(text.data)))
        advice = f"export.text={fits} should fit" if fits else "there is no room for any"
        raise ConfigError(
            f"{text.bytes:,} bytes of text pack into {len(text.data):,}, and weights and code leave {max(0, room):,} "
            f"of the cap of {CAP_BYTES:,}: {advice} (`niblick export RUN text=N` packs a trained run anew)"
        )


def packed_text(config: RunConfig, dataset: Dataset) -> PackedText | None:
    """Return the text that `config.export` wants in the artifact, None where it wants none.

    Raises ConfigError if no sidecar would read it.
    """
    if not config.export.text:
        return None
    from niblick.pack.chosen_text import chosen_text  # which compile: only where they are used
    from niblick.score.known_text import KnownText

    expect_reader(config)
    tokens_N, count, documents = chosen_text(dataset.train, dataset.tokenizer, config.export.text)
    return KnownText.packing(tokens_N, config.model.vocab_size, config.score.sidecar, count, documents).packed


def with_text(config: RunConfig, dataset: Dataset, calibration: Calibration) -> tuple[PackedText | None, Calibration]:
    """Return what `packed_text` does, and the calibration with what it took: it is training text, too."""
    started = time.perf_counter()
    text = packed_text(config, dataset)
    if text is None:
        return None, calibration
    seconds = (calibration.calibration_seconds or 0.0) + time.perf_counter() - started
    return text, replace(calibration, calibration_seconds=seconds, text_bytes=text.bytes, packed_text=len(text.data))


def exported(run: Run, name: str) -> ExportFacts | None:
    """What export.json says of an artifact; None where there is none."""
    path = run.artifact(name).with_name("export.json")
    return read_file(ExportFacts, path) if path.is_file() else None


def train_clock(run: Run, name: str) -> float | None:
    """Seconds of training that an artifact took as the challenge counts: its calibration on training text included."""
    seconds, facts = clocks_of(run).train_seconds, exported(run, name)
    return None if seconds is None else seconds + ((facts.calibration_seconds if facts else None) or 0.0)


def packed(
    config: RunConfig, tensors: dict[str, torch.Tensor], dataset: Dataset
) -> tuple[dict[str, EncodedTensor], Calibration]:
    """Return the weights as `config.export` wants them stored, and, with GPTQ, what its calibration took."""
    wanted = config.export
    if wanted.gptq == "off":
        return pack(tensors, wanted), Calibration()
    if wanted.permute:
        tensors, wanted = permuted(tensors), replace(wanted, permute=False)
    hessians, facts = calibrated(config, tensors, dataset, wanted if wanted.gptq == "quantized" else None)
    notes: dict[str, str] = {}
    packed = pack(tensors, wanted, hessians=hessians, tell=notes.__setitem__)
    return packed, replace(facts, gptq_notes=notes)


def calibrated(
    config: RunConfig, tensors: dict[str, torch.Tensor], dataset: Dataset, quantized: ExportConfig | None = None
) -> tuple[Hessians, Calibration]:
    """Return the Hessians of weights from training text, and what they took.

    Inputs are those of the float model or, if given how it is `quantized`, of the quantized one.
    """
    started = time.perf_counter()
    model = build_model(config.model, seed=0)
    model.load_state_dict(tensors)
    device = pick_device(config.train.device)
    batches = calibration_batches(
        dataset.train,
        dataset.val,
        vocab_size=config.model.vocab_size,
        seq_len=config.score.seq_len,
        tokens=config.export.calibration_tokens,
    )
    with autocast(device, config.train.dtype):
        if quantized:
            hessians = calibrate_quantized(model.to(device), batches, quantized)
        else:
            hessians = calibrate(model.to(device), batches)
    seconds = time.perf_counter() - started
    tokens = sum(ids.numel() for ids in batches)
    return hessians, Calibration(calibration_seconds=seconds, calibration_tokens=tokens)


def artifact_header(
    config: RunConfig, tokenizer: Mapping[str, object], train_text_hash: str | None = None
) -> dict[str, object]:
    """What an artifact says about itself: all it takes to score it, and which text it knows."""
    score = to_dict(config.score) | {"dtype": config.train.dtype}
    known = {"train_text_hash": train_text_hash} if train_text_hash else {}
    return {"model": to_dict(config.model), "tokenizer": tokenizer, "score": score, **known}


def weighed(artifact_bytes: int, config: RunConfig, recipe: Path | None) -> Sizes:
    """Bytes of an artifact, of the code that it needs, and of both; and `code_not_weighed`, the reason where it is so.

    A run never depends on its script: whatever is the matter with that, code and both are None, and nothing is raised.
    """
    code, why = None, None
    try:
        code = closure_bytes(config, recipe)
    except Exception as error:
        why = str(error) if isinstance(error, NiblickError) else f"{type(error).__name__}: {error}"
    total = None if code is None else artifact_bytes + code
    return Sizes(artifact_bytes=artifact_bytes, code_bytes=code, total_bytes=total, code_not_weighed=why)


def closure_bytes(config: RunConfig, recipe: Path | None) -> int:
    """Bytes of the script of a config, as `niblick submit` would ship it. Raises ConfigError if it cannot be made.

    A start that reads a file besides data and code has no script (`niblick submit` refuses it); such a config is
    counted as one that starts from whitespace.
    """
    if reads_another_file(config):
        config = replace(config, train=replace(config.train, init_from="whitespace"))
    return make_script(config, recipe).total
