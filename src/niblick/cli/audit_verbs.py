"""Verbs that prove a score: the audit, and a file under a model and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json
from niblick.errors import ConfigError, DataError

Model = Annotated[str, typer.Option("--model", help="RUN, RUN:NAME or the path of an artifact.")]


@app.command()
def audit(
    target: Annotated[str, typer.Argument(help="RUN, an artifact, module:function, a log, a script, a submission.")],
    prove: Annotated[int, typer.Option(help="Prove the score of so many documents by coding and decoding them.")] = 0,
    source: Annotated[str, typer.Option(help="The text the data was made of: tells copies from what it repeats.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for what is only to be looked at, too.")
    ] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Try every position of whole windows.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run a submission's script even if no cage holds it.")] = False,
    limits: Annotated[
        str, typer.Option(help="What it may take: seconds=600,memory=8GB,processes=64,output=1MB,disk=2GB.")
    ] = "",
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Is the score honest? Exit code 1: a check failed; 2: nothing read. Example: `niblick audit latest --prove 3`"""
    from rich.console import Console

    from niblick.audit.file_checks import audit_file
    from niblick.audit.printed import print_audit

    if prove < 0:
        raise ConfigError(f"--prove {prove} is no number of documents: give at least 1")
    found = audit_file(target)
    if found is None:
        from niblick.audit.auditor import Options
        from niblick.audit.auditor import audit as run_audit
        from niblick.audit.function_checks import Effort
        from niblick.submission.cage import parse_limits
        from niblick.submission.rerun import handling

        held = handling(parse_limits(limits), trust)
        options = Options(Effort(1 << 22) if thorough else Effort(), prove, source, held)
        found = run_audit(target, runs, data, options, None if json_ else _say)
    if json_:
        print_json(found.record())
    elif found.outcome != "nothing read":
        print_audit(found, Console(highlight=False))
    if found.outcome == "nothing read":
        raise DataError(f"{target}: {found.sentence()}")
    if code := found.exit_code(strict):
        sys.exit(code)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


@app.command()
def compress(
    file: Annotated[Path, typer.Argument(help="Any file; text is what it is good for.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the stream goes.")],
    model: Model,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Code a file with a model, without loss. Example: `niblick compress notes.txt -o notes.nbt --model latest`"""
    import time
    from dataclasses import asdict

    from niblick.console import RunConsole
    from niblick.run.compressor import open_model
    from niblick.run.directory import write_bytes
    from niblick.score.coded_file import compress as code

    _expect_place(out, file)
    original = _read(file)
    coder, config = open_model(model, runs, data)
    started = time.perf_counter()
    with RunConsole() as console:
        stream, sizes = code(original, coder, config, console.counting("coding token"))
    write_bytes(out, stream)
    seconds = time.perf_counter() - started
    facts = asdict(sizes) | {"overhead": sizes.overhead, "out": str(out), "model": coder.name, "seconds": seconds}
    facts["bits_per_byte"] = 8 * sizes.payload / sizes.original if sizes.original else None
    if json_:
        print_json(facts)
        return
    rate = f", {facts['bits_per_byte']:.4f} bits per byte" if sizes.original else ""
    patch = f", {sizes.patch:,} of what the tokenizer loses" if sizes.patch else ""
    print(f"{sizes.original:,} bytes became {sizes.total:,}, in {seconds:.1f} s")
    print(
        f"model     {sizes.coded:,} bytes: {sizes.payload:,} of text{rate}{patch}, and {sizes.overhead:,} of overhead: "
        "which model it was, and checks"
    )
    if sizes.method != "model":
        how = "as it is" if sizes.method == "raw" else "deflated"
        print(f"stored    {how}, since that is smaller: the overhead is the same for a longer text")
    print(f"back by   niblick decompress {out} -o FILE --model {model}")


@app.command()
def decompress(
    file: Annotated[Path, typer.Argument(help="What `niblick compress` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the file goes.")],
    model: Model,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Give a file back from its stream. Example: `niblick decompress notes.nbt -o notes.txt --model latest`"""
    import time

    from niblick.console import RunConsole
    from niblick.run.compressor import open_model
    from niblick.run.directory import write_bytes
    from niblick.score.coded_file import decompress as restore

    _expect_place(out, file)
    stream = _read(file)
    coder, _ = open_model(model, runs, data)
    started = time.perf_counter()
    with RunConsole() as console:
        original = restore(stream, coder, console.counting("decoding token"))
    write_bytes(out, original)
    seconds = time.perf_counter() - started
    if json_:
        print_json({"out": str(out), "bytes": len(original), "model": coder.name, "seconds": seconds})
    else:
        print(f"{len(original):,} bytes in {out}, in {seconds:.1f} s")


def _expect_place(out: Path, file: Path) -> None:
    """Raise ConfigError, before hours of coding, where the result cannot be put."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: name a file in it")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}: make it, or name another")
    if out.exists() and file.exists() and out.samefile(file):
        raise ConfigError(f"--out {out} is the file that is read: name another, and remove that one yourself")


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a directory: give one file (tar makes one of many)")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
