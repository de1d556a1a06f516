"""Other artifacts of the same weights, runs handed on, files under a model: export, fit, push, compress, decompress."""

from __future__ import annotations

import os
from pathlib import Path

from niblick.api.own_runs import Artifact, PathLike
from niblick.api.wording import worded
from niblick.console import RunConsole
from niblick.errors import ConfigError
from niblick.pack.fit import Telling
from niblick.recipes.targets import assignments
from niblick.run import exports
from niblick.run.compressor import open_model
from niblick.run.directory import open_run
from niblick.score import coded_file
from niblick.submission import pushing


@worded
def export(target: PathLike = "latest", *, name: str = "", runs: PathLike = "runs", **settings: object) -> Artifact:
    """Pack the weights of a finished run anew, score the file in a fresh process, and return the artifact.

    `settings` are keys of the export, as `scheme="int6", codec="range", gptq="float"`; `name` is what the artifact is
    called, by default what it is made of. Raises ConfigError for a key, value or name that does not fit, and for a run
    without weights.
    """
    with RunConsole() as console:
        run = open_run(os.fspath(target), Path(runs))
        result = exports.export_run(run, assignments(settings), console, name)
    return Artifact(run.artifact(result.artifact))


@worded
def fit(
    target: PathLike = "latest",
    cap: int | None = None,
    *,
    artifact_bytes: int | None = None,
    codec: str = "range",
    gptq: bool = True,
    tokens: int = exports.MEASURE_TOKENS,
    runs: PathLike = "runs",
    **settings: object,
) -> Artifact:
    """Find the best weights of a finished run that fill a cap, score them, and return the artifact.

    `cap` counts bytes of code and artifact together (16,000,000 by default); `artifact_bytes` the artifact alone,
    instead. `tokens` of training text are what candidates are scored on; `gptq` rounds by what layers see of it.
    `settings` are keys of the export and its score, as `text=1_000_000, score__sidecar__name="mixture"`: as much text
    is packed as pays. Raises ConfigError for a key or value that does not fit, ArtifactError for a cap that nothing
    fits.
    """
    if cap is not None and artifact_bytes is not None:
        raise ConfigError("cap counts code and artifact, artifact_bytes the artifact alone: give one of them")
    with RunConsole() as console:
        run = open_run(os.fspath(target), Path(runs))
        telling = Telling(console.say, console.counting("tensor"))
        fitted = exports.fit_run(
            run,
            console,
            assignments(settings),
            cap=cap,
            artifact=artifact_bytes,
            codec=codec,
            gptq=gptq,
            tokens=tokens,
            telling=telling,
        )
    return Artifact(run.artifact(fitted.result.artifact))


@worded
def compress(
    content: bytes | str, model: PathLike = "latest", *, data: PathLike = "", runs: PathLike = "runs"
) -> bytes:
    """Return `content` coded by a model, without loss: `decompress` gives its bytes back. A str is taken as UTF-8.

    `model` is a run, `RUN:NAME` or an artifact. What the model makes larger is stored plainly. A subword tokenizer
    comes from `data`, by default from what the run was trained on. Raises ConfigError for what is no text or bytes.
    """
    if not isinstance(content, bytes | str):
        raise ConfigError(f"{type(content).__name__} cannot be compressed: give bytes or str, as Path(…).read_bytes()")
    coder, config = open_model(os.fspath(model), Path(runs), os.fspath(data))
    with RunConsole() as console:
        original = content.encode() if isinstance(content, str) else content
        stream, _ = coded_file.compress(original, coder, config, console.counting("coding token"))
    return stream


@worded
def decompress(stream: bytes, model: PathLike = "latest", *, data: PathLike = "", runs: PathLike = "runs") -> bytes:
    """Return the bytes that `compress` was given, by the same model.

    Raises ArtifactError for anything but a whole stream of that model.
    """
    coder, _ = open_model(os.fspath(model), Path(runs), os.fspath(data))
    with RunConsole() as console:
        return coded_file.decompress(stream, coder, console.counting("decoding token"))


@worded
def push(target: PathLike, to: PathLike, *, private: bool = False, runs: PathLike = "runs") -> str:
    """Write weights, artifact, config and model card of a finished run for others, and return what `load` takes.

    `to` is `hf:OWNER/NAME`, or a new folder; of the hub the commit is told too, as `hf:OWNER/NAME@COMMIT`. `private` is
    for a repository that is made for it. Raises ConfigError for a run that is not finished or was changed and for a
    folder in use, DataError where the hub does not take it.
    """
    pushed = pushing.push(open_run(os.fspath(target), Path(runs)), os.fspath(to), private)
    return f"{pushed.where}@{pushed.revision}" if pushed.revision else pushed.where
