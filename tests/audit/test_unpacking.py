"""Packed scripts are unpacked without being run, within bounds; what is inside is read."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from niblick.audit.script_checks import audit_script
from niblick.audit.unpacking import MOST_BYTES, unpack
from niblick.bundle.maker import make_script
from niblick.config.run_config import override
from niblick.errors import ConfigError
from niblick.recipes.presets import PRESETS, get_preset

CHEAT = """import torch
val_tokens = load("fineweb_val_0.bin")
for step in range(9):
    model(val_tokens[:-1], val_tokens[1:]).backward()
"""
PLAIN = (
    'import torch\nval_tokens = load("fineweb_val_0.bin")\nwith torch.no_grad():\n    print(model(val_tokens).item())\n'
)
RAW = [{"id": lzma.FILTER_LZMA2, "preset": 6}]

FORMS: dict[str, Callable[[bytes], str]] = {
    "zlib, base64": lambda b: (
        f"import zlib, base64\nexec(zlib.decompress(base64.b64decode({base64.b64encode(zlib.compress(b))!r})))"
    ),
    "lzma, base85, renamed": lambda b: (
        "from lzma import decompress as d\nfrom base64 import b85decode as e\n"
        f"TEXT = d(e({base64.b85encode(lzma.compress(b)).decode()!r}))\nexec(TEXT.decode('utf-8'))"
    ),
    "raw lzma": lambda b: (
        "import lzma as L, base64 as B\n"
        f"exec(L.decompress(B.b85decode({base64.b85encode(lzma.compress(b, lzma.FORMAT_RAW, filters=RAW)).decode()!r}),"
        "format=L.FORMAT_RAW,filters=[{'id':L.FILTER_LZMA2,'preset':6}]))"
    ),
    "bz2, ascii85, compile": lambda b: (
        "import bz2, base64\n"
        f"exec(compile(bz2.decompress(base64.a85decode({base64.a85encode(bz2.compress(b))!r})), 'x', 'exec'))"
    ),
    "brotli, literal bytes": lambda b: f"import brotli\nexec(brotli.decompress({brotli.compress(b)!r}))",
    "zstd, in pieces": lambda b: (
        "import zstandard\n"
        f"a = {zstandard.compress(b)[:40]!r}\nb = {zstandard.compress(b)[40:]!r}\n"
        "exec(zstandard.ZstdDecompressor().decompress(a + b).decode())"
    ),
    "gzip, hex, __import__": lambda b: (
        f"exec(__import__('gzip').decompress(bytes.fromhex({gzip.compress(b).hex()!r})))"
    ),
    "written to a file": lambda b: (
        f"import zlib\nopen('m.py', 'wb').write(zlib.decompress({zlib.compress(b)!r}))\nimport m"
    ),
    "renamed exec": lambda b: f"import zlib\nrun = exec\nrun(zlib.decompress({zlib.compress(b)!r}))",
    "plain text in a literal": lambda b: f"exec({b.decode()!r})",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str) -> None:
    found = {check.name: check for check in audit_script(FORMS[form](CHEAT.encode()))}
    assert found["score-first"].status == "look" and "packed in line" in found["score-first"].detail
    nested = FORMS["bz2, ascii85, compile"](FORMS[form](CHEAT.encode()).encode())
    assert {check.name: check.status for check in audit_script(nested)}["score-first"] == "look"


@pytest.mark.parametrize("form", FORMS)
def test_an_honest_packed_script_passes(form: str) -> None:
    found = audit_script(FORMS[form](PLAIN.encode()))
    assert {check.status for check in found} == {"pass", "not applicable"}
    assert {check.name: check.status for check in found}["score-first"] == "pass"


@pytest.mark.parametrize(
    "source",
    [
        f"import zlib\nexec(zlib.decompress({zlib.compress(bytes(MOST_BYTES + 1))!r}))",
        "import urllib.request\nexec(urllib.request.urlopen('x').read())",
        "import marshal\nf = marshal.loads(b'c')\nf()",
        "import zlib\nexec(zlib.decompress(b'no stream'))",
        "import sys\nexec(bytes(int(n) for n in sys.argv[1:]))",
    ],
)
def test_what_cannot_be_had_is_not_read_and_no_pass(source: str) -> None:
    assert unpack(source).unread
    assert {check.status for check in audit_script(source)} <= {"look", "not applicable"}


def test_names_that_stand_for_themselves_are_read_and_endless_ones_refused() -> None:
    """`import a.b as a`, `x = x.y` and circles of names; a chain longer than anybody writes is no pass."""
    for source in ("import numpy as n\nx = x.y\nx.z()\n", "a = b.c\nb = a.d\na()\n", "def f(): pass\nf = f()()\nf()\n"):
        assert unpack(source).layers[0].text == source
    chain = "".join(f"x{n + 1} = x{n}\n" for n in range(2000)) + "x2000.loads(b'')\n"
    with pytest.raises(ConfigError, match="goes through more than 300 others"):
        unpack(chain)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-8"])
def test_any_encoding_and_line_ends(encoding: str) -> None:
    found = audit_script(CHEAT.replace("\n", "\r\n").encode(encoding))
    assert {check.name: check.status for check in found}["score-first"] == "look"


@pytest.mark.parametrize("name", ["quickstart", "hnet-small"])
def test_our_own_scripts_are_read_and_raise_no_alarm(name: str) -> None:
    settings = ["score.ttt.optimizer=sgd"]
    script = make_script(override(get_preset(name), settings))
    for source in (script.readable, script.packed):
        found = audit_script(source)
        assert {check.status for check in found} == {"pass", "not applicable"}, found


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_scripts_of_all_presets_raise_no_alarm(name: str) -> None:
    script = make_script(get_preset(name))
    for source in (script.readable, script.packed):
        assert {check.status for check in audit_script(source)} == {"pass", "not applicable"}
