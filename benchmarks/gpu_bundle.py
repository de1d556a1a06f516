"""What a bare GPU machine without network needs for benchmarks/gpu_day.py, in one folder of at most 64 MiB.

    python benchmarks/gpu_bundle.py OUT --data DIR [--data DIR …] [--python 3.12]

Meant for a machine that has Python, torch and numpy. Carries the package as a wheel, wheels of what it imports, the
benchmarks and CUDA tests as committed, and datasets, packed by xz. On the far machine:

    sh OUT/begin.sh WHERE                       # unpacks into WHERE, an environment beside it
    cd WHERE && env/bin/python benchmarks/gpu_day.py
"""

from __future__ import annotations

import argparse
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 64 << 20
NEEDED = (
    *("safetensors", "sentencepiece", "zstandard", "brotli", "constriction", "pyppmd", "pydantic", "pydantic-core"),
    *("annotated-types", "typing-extensions", "typing-inspection", "typer", "click", "shellingham", "rich"),
    *("markdown-it-py", "mdurl", "pygments", "python-minifier", "packaging", "filelock", "psutil"),
    *("pytest", "iniconfig", "pluggy", "annotated-doc"),
)
"""What training, packing, scoring, auditing and the tests import; scipy and matplotlib are for studies and pages."""
CARRIED = ("benchmarks", "tests/cuda", "tests/reference/hnet_byte260.npz", "pyproject.toml", "constraints.txt")
CHECK = """# Is this the Python that the wheels are for, and can torch.compile work? Prints where torch and numpy lie.
import importlib.util, os, shutil, sys, sysconfig

here = "{}.{}".format(*sys.version_info)
if here != WANTED:
    sys.exit(f"this is Python {here}, and the wheels are for {WANTED}: call another python3, or make them by --python")
compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
headers = os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))
for what, there in (("C compiler (gcc)", compiler), ("Python.h (python3-dev)", headers)):
    if not there:
        print(f"warning: there is no {what}, and torch.compile on a GPU needs one", file=sys.stderr)
found = {name: importlib.util.find_spec(name) for name in ("torch", "numpy")}
if missing := [name for name, spec in found.items() if not spec]:
    sys.exit(f"this python3 has no {' and no '.join(missing)}: call one that has")
print(*sorted({os.path.dirname(os.path.dirname(spec.origin)) for spec in found.values()}), sep="\\n")
"""
BEGIN = """#!/bin/sh
# Unpacks what was carried into the folder $1, and makes an environment there that sees the torch of this python3,
# be it the system's or an environment's own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
python3 "$here/check.py" > torch.pth
python3 -m venv env
mv torch.pth "$(env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
env/bin/pip install --quiet --no-index --no-deps "$here"/wheels/*.whl
for packed in "$here"/*.tar.xz; do
  env/bin/python -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(filter="data")' "$packed"
done
env/bin/python -c 'import torch, niblick; print("torch", torch.__version__, "sees CUDA:", torch.cuda.is_available())'
"""


def wheels(out: Path, python: str) -> None:
    """The package's own wheel, and those of what it needs, for that version of Python on Linux."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)], check=True)
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (17, 27, 28)] + ["--platform=manylinux2014_x86_64"]
    wanted = ["--no-deps", "--only-binary=:all:", "--python-version", python, *platforms, "--dest", str(out)]
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "download", "--quiet", *wanted, *pinned, *NEEDED], check=True)


def packed(path: Path, files: dict[str, Path]) -> None:
    """A tar file under xz, of these paths by the names they shall have."""
    with lzma.open(path, "wb", preset=6) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, file in files.items():
            tar.add(file, name, filter=lambda info: None if "__pycache__" in info.name else info)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--data", type=Path, action="append", default=[], help="a prepared dataset; lies in data/ there"
    )
    parser.add_argument("--python", default="3.12", help="version of the far machine")
    options = parser.parse_args()
    if options.out.exists():
        sys.exit(f"{options.out} exists: give a folder that is new")
    for data in options.data:
        if not (data / "manifest.json").is_file():
            sys.exit(f"{data} is no prepared dataset: it has no manifest.json")
    (options.out / "wheels").mkdir(parents=True)
    wheels(options.out / "wheels", options.python)
    packed(options.out / "code.tar.xz", {name: ROOT / name for name in CARRIED})
    for data in options.data:
        packed(options.out / f"{data.resolve().name}.tar.xz", {f"data/{data.resolve().name}": data})
    (options.out / "check.py").write_text(f"WANTED = {options.python!r}\n{CHECK}")
    (options.out / "begin.sh").write_text(BEGIN)
    sizes = {path.relative_to(options.out): path.stat().st_size for path in options.out.rglob("*") if path.is_file()}
    for path, size in sorted(sizes.items(), key=lambda row: -row[1])[:8]:
        print(f"{size:12,}  {path}")
    total = sum(sizes.values())
    print(f"{total:12,}  bytes in all, {total / LIMIT:.0%} of 64 MiB")
    return int(total > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
