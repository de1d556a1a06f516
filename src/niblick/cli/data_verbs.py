"""Verbs that make and check token shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.cli.app import Json, data_app, flat, print_config, print_json, print_table
from niblick.errors import ConfigError

Out = Annotated[Path, typer.Option(help="New folder for shards, index and manifest.")]
Normalization = Annotated[
    str, typer.Option(help="Of sp:VOCAB: identity (lossless) or nmt_nfkc (the challenge's, which loses text).")
]
ShardTokens = Annotated[int, typer.Option(help="Tokens per shard.")]
Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core, at most 6.")]
TOKENIZERS = (
    "byte260, byte256, FILE.model (SentencePiece), a byte-level tokenizer.json, or sp:VOCAB, which trains one "
    "on this text."
)


@data_app.command("prepare")
def data_prepare(
    source: Annotated[
        str,
        typer.Option(
            help="pydocs, pysource, FILE.jsonl, FILE.csv, FILE.txt (also .zst, .gz, .xz, .bz2), FILE.parquet, "
            "FILE.arrow, a folder of such, challenge:docs, challenge:sp1024, or "
            "hf:REPO[@REVISION][:CONFIG][:SPLIT][#COLUMN]."
        ),
    ],
    out: Out,
    tokenizer: Annotated[
        str | None, typer.Option(help=f"{TOKENIZERS} By default byte260, or what challenge shards have.")
    ] = None,
    normalization: Normalization = "identity",
    val_docs: Annotated[int | None, typer.Option(help="The first N documents are the validation split.")] = None,
    val_share: Annotated[
        float | None,
        typer.Option(help="Or this share of them (0.05 by default); one text is cut for it at paragraph ends."),
    ] = None,
    max_docs: Annotated[int | None, typer.Option(help="Read no more than N documents.")] = None,
    train_shards: Annotated[
        int | None, typer.Option(help="Fetch the first N training shards of challenge:sp1024 (80 by default).")
    ] = None,
    text_key: Annotated[
        str, typer.Option(help="Key or column of the text; with dots inside another, as in meta.text.")
    ] = "text",
    separator: Annotated[
        str, typer.Option(help="Cut text files into documents here, as at '<|endoftext|>'; by default a file is one.")
    ] = "",
    files: Annotated[
        list[str] | None,
        typer.Option(
            help="Read these files of a folder, as '*.py' (may be repeated); by default its data or its prose."
        ),
    ] = None,
    max_window: Annotated[
        int, typer.Option(help="Largest window of a .zst in MiB: reading takes so much memory (2048: --long=31).")
    ] = 2048,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out documents whose text is null, absent or empty; count them.")
    ] = False,
    shuffle_seed: Annotated[int | None, typer.Option(help="Shuffle a dataset of the hub, with this seed.")] = None,
    shard_tokens: ShardTokens = 100_000_000,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Turn text into token shards. Example: `niblick data prepare --source pydocs --out data/pydocs`"""
    from niblick.console import RunConsole
    from niblick.data.documents import Reading
    from niblick.data.prepare import prepare

    there = (out / "manifest.json").is_file()
    what = "files" if source.startswith("challenge:") and source != "challenge:docs" else "documents"
    with RunConsole() as console:
        manifest = prepare(
            source,
            tokenizer,
            out,
            val_docs=val_docs,
            val_share=val_share,
            max_docs=max_docs,
            shard_tokens=shard_tokens,
            workers=workers,
            normalization=_normalization(normalization),
            train_shards=train_shards,
            shuffle_seed=shuffle_seed,
            reading=Reading(text_key, separator, max_window << 20, tuple(files or ()), skip_empty=skip_empty),
            progress=lambda count, size: console.preparing(what, count, size),
        )
        if there:
            console.say(f"{out} is there already, prepared in the same way: nothing was done")
    _show_data(manifest, out, json_)


@data_app.command("convert")
def data_convert(
    folder: Annotated[
        Path,
        typer.Argument(help="Shards: a dataset, the challenge's own with its manifest, or those of llm.c, nanoGPT …"),
    ],
    out: Out,
    tokenizer: Annotated[str, typer.Option(help=f"{TOKENIZERS}")] = "byte260",
    given: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer of the shards, where no manifest names it: byte260, FILE.model, or another "
            "project's tokenizer.json, vocab.json or FILE.tiktoken."
        ),
    ] = None,
    normalization: Normalization = "identity",
    shard_tokens: ShardTokens = 100_000_000,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Decode shards and encode their documents anew. Example: `niblick data convert data/sp --out data/bytes`"""
    from niblick.console import RunConsole
    from niblick.data.prepare import convert
    from niblick.data.tokenizers import given_tokenizer

    with RunConsole() as console:
        manifest = convert(
            folder,
            tokenizer,
            out,
            given=given_tokenizer(given) if given else None,
            shard_tokens=shard_tokens,
            workers=workers,
            normalization=_normalization(normalization),
            progress=lambda count, size: console.preparing("documents", count, size),
        )
    _show_data(manifest, out, json_)


def _normalization(name: str) -> Any:
    if name not in ("identity", "nmt_nfkc"):
        raise ConfigError(f"unknown normalization {name!r}: choose identity (lossless) or nmt_nfkc (the challenge's)")
    return name


def _show_data(manifest: dict[str, Any], out: Path, json_: bool) -> None:
    """What prepare and convert say at their end."""
    if json_:
        print_json(manifest)
        return
    _print_data(manifest)
    entry = manifest["datasets"][0]
    of_bytes = entry["vocab_size"] == 260
    preset = "niblick-byte-small" if of_bytes else "hnet-small"
    vocabulary = "" if of_bytes else f" model.vocab_size={entry['vocab_size']}"
    print(f"\n{out} is ready: niblick train {preset} --data {out}{vocabulary}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="What `niblick data prepare` made.")],
    json_: Json = False,
) -> None:
    """Check headers, sizes, tokens, hashes and index of a dataset. Example: `niblick data check data/pydocs`"""
    from niblick.data.check import check

    report = check(folder)
    if json_:
        print_json(report)
    else:
        print_table(["checked", ""], [[k, v] for k, v in flat(report)])


def _print_choices(facts: dict[str, Any]) -> None:
    """What was chosen where nobody said it: how one text was cut, which files of a folder were left out."""
    if cut := facts.get("one_text"):
        print(
            f"\none text, cut at the ends of paragraphs into documents of about {cut['document_bytes']:,} bytes; its "
            f"first {cut['held_out_bytes']:,} bytes are the validation split (--val-share {cut['val_share']:g})"
        )
    if (left := facts.get("left_out")) and left["files"]:
        more = f" and {left['files'] - len(left['names'][:5]):,} more" if left["files"] > 5 else ""
        print(f"\nleft out of the folder: {', '.join(left['names'][:5])}{more} (--files NAME reads others)")
    if cut := facts.get("converted_from", {}).get("cut_off"):
        print(
            f"\nleft out: the last training document, of which the first {cut['tokens']:,} tokens are here; fetch the "
            "shards that follow to have it"
        )
    _print_empty(facts["splits"])
    if not facts["splits"]["val"]["documents"]:
        print("\nthere is no validation split: nothing can be scored on this data")


def _print_empty(splits: Mapping[str, Any]) -> None:
    """How many documents have no text, and how many were left out for that."""
    if skipped := sum(split["skipped"] for split in splits.values()):
        print(f"\nleft out: {skipped:,} documents whose text is null, absent or empty (--skip-empty)")
    for name, split in splits.items():
        if split["empty"]:
            print(
                f"\n{name}: {split['empty']:,} of {split['documents']:,} documents are empty (--skip-empty leaves "
                "them out)"
            )


def _print_data(manifest: dict[str, Any]) -> None:
    if "niblick" not in manifest:  # shards as the challenge made them
        print_config({"stats": manifest["datasets"][0].get("stats", {})})
        print("\nwithout document index: what a lossy tokenizer lost is unknown (`niblick data check` says more)")
        return
    splits = manifest["niblick"]["splits"]
    print_table(
        ["split", "documents", "bytes", "tokens", "text hash"],
        [
            [n, f"{s['documents']:,}", f"{s['bytes']:,}", f"{s['tokens']:,}", str(s["text_hash"])[:16]]
            for n, s in splits.items()
        ],
    )
    for name, split in splits.items():
        if split["lost"]:
            lost, example = split["lost"], split["lost"]["example"] or {"original": "", "decoded": ""}
            print(
                f"\n{name}: {lost['documents']:,} of {split['documents']:,} documents do not come back "
                f"({lost['bytes']:,} bytes became {lost['decoded_bytes']:,}), such as "
                f"{example['original']!r} → {example['decoded']!r}"
            )
    _print_choices(manifest["niblick"])
