"""Other artifacts of the same weights, runs handed on, files under a model: export, fit, push, compress, decompress."""

from __future__ import annotations

import os
from pathlib import Path

from niblick.api.own_runs import Artifact
from niblick.arguments import Count, Folder, PathLike, Text
from niblick.console import RunConsole
from niblick.errors import ConfigError
from niblick.pack.fit import Telling
from niblick.recipes.targets import assignments
from niblick.run import exports
from niblick.run.compressor import open_model
from niblick.run.directory import open_run
from niblick.score import coded_file
from niblick.submission import pushing


def export(target: PathLike = "latest", *, name: str = "", runs: Folder = "runs", **settings: object) -> Artifact:
    """Pack the weights of a finished run anew, score the file in a fresh process, and return the artifact.

    `settings` are keys of the export, as `scheme="int6", codec="range", gptq="float"`; `name` is what the artifact is
    called, by default what it is made of. Raises ConfigError for a key, value or name that does not fit, and for a run
    without weights.
    """
    with RunConsole() as console:
        run = open_run(os.fspath(target), Path(runs))
        result = exports.export_run(run, assignments(settings), console, name)
    return Artifact(run.artifact(result.artifact))


def fit(
    target: PathLike = "latest",
    cap: Count | None = None,
    *,
    artifact_bytes: Count | None = None,
    codec: str = "range",
    gptq: bool = True,
    tokens: Count = exports.MEASURE_TOKENS,
    runs: Folder = "runs",
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


def compress(content: Text, model: PathLike = "latest", *, data: PathLike = "", runs: Folder = "runs") -> bytes:
    """Return `content` coded by a model, without loss: `decompress` gives its bytes back. A str is taken as UTF-8.

    `model` is a run, `RUN:NAME` or an artifact. What the model makes larger is stored plainly. A subword tokenizer
    comes from `data`, by default from what the run was trained on. Raises ConfigError for what is no text or bytes.
    """
    coder, config = open_model(os.fspath(model), Path(runs), os.fspath(data))
    with RunConsole() as console:
        original = content.encode() if isinstance(content, str) else content
        stream, _ = coded_file.compress(original, coder, config, console.counting("coding token"))
    return stream


def decompress(stream: bytes, model: PathLike = "latest", *, data: PathLike = "", runs: Folder = "runs") -> bytes:
    """Return the bytes that `compress` was given, by the same model; what was stored plainly, any model gives back.

    Raises ArtifactError for a stream of another model, and for what is no whole stream.
    """
    coder, _ = open_model(os.fspath(model), Path(runs), os.fspath(data))
    with RunConsole() as console:
        return coded_file.decompress(stream, coder, console.counting("decoding token"))


def push(target: PathLike, to: PathLike, *, private: bool = False, runs: Folder = "runs") -> str:
    """Write weights, artifact, config and model card of a finished run for others, and return what `load` takes.

    `to` is `hf:OWNER/NAME`, or a new folder; of the hub the commit is told too, as `hf:OWNER/NAME@COMMIT`. `private` is
    for a repository that is made for it. Raises ConfigError for a run that is not finished or was changed and for a
    folder in use, DataError where the hub does not take it.
    """
    pushed = pushing.push(open_run(os.fspath(target), Path(runs)), os.fspath(to), private)
    return f"{pushed.where}@{pushed.revision}" if pushed.revision else pushed.where
