"""Verbs between models and text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json

if TYPE_CHECKING:
    from niblick.run.generate import Piece


@app.command()
def generate(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text to continue. Several are written together, by seeds SEED, SEED+1, ….")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Bytes to generate at most.")] = 400,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw among so many likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among tokens that hold this much probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    show_chunks: Annotated[bool, typer.Option("--show-chunks", help="Colour the chunks in turns.")] = False,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Continue a text. Example: `niblick generate latest --prompt "The quick " --show-chunks`"""
    from niblick.run.generate import GenerateConfig, load

    config = GenerateConfig(max_bytes, temperature, top_k, top_p, seed)
    loaded = load(target, data, runs=runs)
    prompts = prompt or [""]
    pieces: list[list[Piece]] = [[] for _ in prompts]
    stream = loaded.streams(prompts, config)
    if json_ or len(prompts) > 1:
        for i, piece in stream:
            pieces[i].append(piece)
    if json_:
        texts = [_facts(*each) for each in zip(prompts, pieces, strict=True)]
        print_json(texts if len(prompts) > 1 else texts[0])
    elif len(prompts) > 1:
        for i, each in enumerate(pieces):
            print(f"--- {i + 1} of {len(prompts)}, seed {seed + i}")
            _show(loaded.read_back(prompts[i]), each, show_chunks)
    else:
        _show(loaded.read_back(prompts[0]), (piece for _, piece in stream), show_chunks)


def _facts(prompt: str, pieces: list[Piece]) -> dict[str, object]:
    starts = [i for i, piece in enumerate(pieces) if piece.starts_chunk]
    texts = [piece.text for piece in pieces]
    return {"prompt": prompt, "text": "".join(texts), "pieces": texts, "chunk_starts": starts}


def _show(prompt: str, pieces: Iterable[Piece], show_chunks: bool) -> None:
    """Print a text as it comes, its chunks coloured in turns where that is asked."""
    colours, number = ("\033[7m", "\033[0m") if show_chunks else ("", ""), 0
    print(prompt, end="")
    for piece in pieces:
        number += piece.starts_chunk
        print(f"{colours[number % 2]}{piece.text}", end="", flush=True)
    print(colours[1])
