"""Arguments are held against their annotations: what was found, and what is expected, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from niblick.arguments import Count, Folder, NewFolder, PathLike, Source, Text, check_fields, checked
from niblick.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Something with fields."""

    seeds: Sequence[int] = (1,)


class Thing:
    """Something that is no dataclass."""


@checked
def called(
    *targets: PathLike,
    count: Count = 1,
    share: float | None = None,
    name: str = "",
    on: bool = False,
    seeds: Sequence[int] = (1,),
    keys: Mapping[str, object] | None = None,
    kind: Literal["png", "svg"] = "png",
    folder: Folder = "",
    out: NewFolder = "out",
    text: Text = "",
    source: Source = "a",
    settings: Settings | PathLike = "",
    thing: Thing | None = None,
    stream: bytes = b"",
    **more: object,
) -> dict[str, Any]:
    return {key: value for key, value in locals().items() if key != "more"} | more


REFUSED = {
    "count=0": "count=0 does not fit: give a whole number, at least 1",
    "count=1.5": "count=1.5 does not fit: give a whole number, at least 1",
    "count='3'": "count='3' does not fit: give a whole number, at least 1",
    "count=True": "count=True does not fit: give a whole number",
    "share='0.1'": "share='0.1' does not fit: give a number",
    "name=5": "name=5 does not fit: give a str",
    "on=1": "on=1 does not fit: give True or False",
    "seeds=['a']": r"seeds\[0\]='a' does not fit: give a whole number",
    "seeds=5": "seeds=5 does not fit: give a list",
    "seeds='12'": "seeds='12' does not fit: give a list",
    "keys=5": "keys=5 does not fit: give a mapping",
    "keys={5: 1}": r"does not fit: give a str",
    "kind='gif'": "kind='gif' does not fit: give 'png' or 'svg'",
    "folder=__file__": "folder='.*' does not fit: it is a file: give a folder",
    "out=''": "out='' does not fit: it is empty: give a folder",
    "text=5": "text=5 does not fit: give str, or bytes",
    "text='a\\ud800'": "does not fit: character 2 is '.ud800', which UTF-8 cannot hold",
    "source=5": "source=5 does not fit: give a path, strings, mappings, or a table",
    "source=b'abc'": "source=b'abc' does not fit: give a path",
    "settings=5": "settings=5 does not fit: give a Settings, or a path or a name",
    "thing=5": "thing=5 does not fit: give a Thing",
    "stream='abc'": "stream='abc' does not fit: give bytes",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_does_not_fit_is_one_sentence(given: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[given]) as caught:
        eval(f"called({given})")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, "give a path or a name"),
        (5, "give a path or a name"),
        (b"bytes", "give a path or a name"),
        (["a", "b"], r"give each as an argument of its own, as \*targets"),
        ("a\0b", "it holds a NUL"),
        ("\ud800", "it holds characters that no path may"),
        ("a" * 256, "it is too long"),
        ("a/" * 2100, "it is too long"),
    ],
)
def test_paths(target: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^targets=.* does not fit: {words}"):
        called("good", target)


def test_what_fits_comes_through_as_it_is() -> None:
    def rows() -> Iterable[str]:
        yield "a"

    made = rows()
    found = called("a", source=made, seeds=range(3), count=np.int64(4), keys={"a": object()}, extra=object())
    assert found["source"] is made and list(made) == ["a"]
    assert found["seeds"] == (0, 1, 2) and type(found["count"]) is int
    assert called(count=torch.tensor(2))["count"] == 2 and called(share=1)["share"] == 1


def test_python_says_itself_which_arguments_are_missing() -> None:
    @checked
    def needs(first: str) -> str:
        return first

    with pytest.raises(TypeError, match=r"needs\(\) missing 1 required positional argument: 'first'"):
        needs()  # type: ignore[call-arg]


def test_fields() -> None:
    check_fields(Settings(seeds=[3]))
    with pytest.raises(ConfigError, match=r"seeds\[0\]='a' does not fit"):
        check_fields(Settings(seeds=["a"]))  # type: ignore[list-item]
