"""SkyPilot: its own API accepts the task; what needs an account is asked of a stand-in that notes it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from niblick.errors import ConfigError
from niblick.remote import sky
from niblick.remote.address import Address, RemoteError
from niblick.remote.records import Machine

ROOT = Path(__file__).parents[2]


def interpreter() -> str:
    """An interpreter with SkyPilot: this one, or that of `make sky`, which keeps its many packages apart."""
    if importlib.util.find_spec("sky"):
        return sys.executable
    own = ROOT / ".venv" / "sky" / "bin" / "python"
    if not own.exists():
        pytest.skip("needs SkyPilot: `make sky` installs it beside the environment of the tests")
    return str(own)


CATALOG = {
    "accelerators.csv": "AcceleratorName,Clouds\nH100,\"['AWS', 'RunPod']\"\nA100-80GB,\"['AWS']\"\n",
    "metadata.csv": "GPU,MemoryGB,Manufacturer\nH100,80,NVIDIA\nA100-80GB,80,NVIDIA\n",
}
"""The few names of SkyPilot's catalog that are asked for, so that no network is needed."""


def write_catalog(home: Path) -> None:
    for version in range(5, 16):
        folder = home / ".sky" / "catalogs" / f"v{version}" / "common"
        folder.mkdir(parents=True)
        for name, text in CATALOG.items():
            (folder / name).write_text(text)


VALIDATE = """
import sys
import sky
from niblick.remote.sky import accelerators, task
shape, cloud = sys.argv[1:]
made = task("niblick-test", accelerators(shape), cloud)
again = sky.Task.from_yaml_config(made.to_yaml_config())
again.validate()
(resources,) = again.resources
print(resources.accelerators, resources.cloud, resources.disk_size, again.run)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "cloud", "expected"),
    [
        ("1x", "runpod", "{'H100': 1} RunPod 200 None"),
        ("h100x8", "", "{'H100': 8} None 200 None"),
        ("a100-80gbx2", "aws", "{'A100-80GB': 2} AWS 200 None"),
    ],
)
def test_skypilot_accepts_the_task(shape: str, cloud: str, expected: str, tmp_path: Path) -> None:
    write_catalog(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [interpreter(), "-c", VALIDATE, shape, cloud], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize(("shape", "name"), [("1x", "H100:1"), ("8x", "H100:8"), ("h100x8", "H100:8")])
def test_shapes(shape: str, name: str) -> None:
    assert sky.accelerators(shape) == name


@pytest.mark.parametrize("shape", ["", "x8", "h100", "8", "h100x0", "h100x8x", "h100:8", "1x;rm"])
def test_shapes_that_are_none(shape: str) -> None:
    with pytest.raises(ConfigError, match="is no shape"):
        sky.accelerators(shape)


class Fake:
    """Notes what is asked of SkyPilot."""

    def __init__(self, stops: bool = True) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.stops = stops

    def launch(self, name: str, accelerators: str, cloud: str) -> sky.Cluster:
        self.asked.append(("launch", name, accelerators, cloud))
        return sky.Cluster(name, 2.99)

    def stop(self, name: str) -> None:
        if not self.stops:
            raise RemoteError("SkyPilot: Stopping not supported.")
        self.asked.append(("stop", name))

    def down(self, name: str) -> None:
        self.asked.append(("down", name))


def test_a_rented_machine_is_reached_by_ssh_and_costs_what_skypilot_says() -> None:
    fake = Fake()
    wanted = Machine("gpu", "sky", Address("gpu", known_hosts="/tmp/known"), shape="h100x8", cloud="runpod")
    rented = sky.Rented(fake).up(wanted)
    assert rented.address == Address("gpu", known_hosts="/tmp/known", accept_host_key=True)
    assert rented.price_per_hour == 2.99 and rented.since > 0
    sky.Rented(fake).stop(rented)
    assert sky.Rented(fake).down(rented, []) == []
    assert fake.asked == [("launch", "gpu", "H100:8", "runpod"), ("stop", "gpu"), ("down", "gpu")]


def test_what_cannot_be_stopped_is_not_ended_instead() -> None:
    fake = Fake(stops=False)
    with pytest.raises(RemoteError, match="Stopping not supported"):
        sky.Rented(fake).stop(Machine("gpu", "sky", Address("gpu")))
    assert fake.asked == []


def test_without_skypilot_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sky", None)
    with pytest.raises(ConfigError, match=r"pip install 'niblick\[sky\]'"):
        sky.sdk()
