"""Verbs between models and text."""

from __future__ import annotations

from typing import Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json


@app.command()
def generate(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
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
    pieces, number = [], 0
    colours = ("\033[7m", "\033[0m") if show_chunks and not json_ else ("", "")
    loaded = load(target, data, runs=runs)
    stream = loaded.stream(prompt, config)
    if not json_:
        print(loaded.read_back(prompt), end="")
    for piece in stream:
        pieces.append(piece)
        number += piece.starts_chunk
        if not json_:
            print(f"{colours[number % 2]}{piece.text}", end="", flush=True)
    if json_:
        text = "".join(piece.text for piece in pieces)
        starts = [i for i, piece in enumerate(pieces) if piece.starts_chunk]
        print_json({"prompt": prompt, "text": text, "pieces": [p.text for p in pieces], "chunk_starts": starts})
    else:
        print(colours[1])
