"""Ray: the same sweep gives the same ids and results as on this machine, also when a worker is killed midway."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, tiny_sweep

from niblick.errors import ConfigError
from niblick.run.directory import Run
from niblick.sweeps import ray_executor
from niblick.sweeps.executors import LocalPool
from niblick.sweeps.job import Job
from niblick.sweeps.ray_executor import RayExecutor, _packed, _unpack
from niblick.sweeps.running import run_sweep, tally
from niblick.sweeps.sweep import grid


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes on this machine, one core each; the address."""
    pytest.importorskip("ray", reason="needs niblick[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False} | memory)
    nodes.add_node(num_cpus=1, **memory)
    nodes.wait_for_nodes()
    yield nodes.address
    nodes.shutdown()


def kill_one_job(folder: Path, killed: list[int]) -> None:
    """Kill the Ray worker of the first job that is seen training; its own process goes with it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                parent = int((line.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if (
                    b"niblick.sweeps.job" in line.read_bytes()
                    and b"ray::" in Path(f"/proc/{parent}/cmdline").read_bytes()
                ):
                    os.kill(parent, signal.SIGKILL)
                    killed.append(parent)
                    return
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ray_gives_what_the_local_pool_gives(cluster: str, toy_data: Path, tmp_path: Path) -> None:
    sweep = tiny_sweep(
        toy_data,
        axes=[grid({"optim.matrix_lr": [0.02, 0.04]})],
        sets=[*TINY, "schedule.steps=12", f"data.path={toy_data}"],
    )
    said: list[str] = []
    local = run_sweep(sweep, tmp_path / "local", LocalPool(workers=2), say=said.append)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_job, args=(tmp_path, killed))
    killer.start()
    executor = RayExecutor(address=cluster, bring_back=True)
    assert executor.slots == 2
    try:
        remote = run_sweep(sweep, tmp_path / "ray", executor, say=said.append)
        killer.join()
        shared = run_sweep(tiny_one(toy_data), tmp_path / "shared", executor, say=said.append)
        with pytest.raises(ConfigError, match="wants 5 CPUs, and no node of the Ray cluster has more than 1"):
            RayExecutor(threads=5, address=cluster)
    finally:
        executor.close()
    assert killed, "no job was seen to be killed"
    assert tally(local) == tally(remote) == "2 done", said
    assert tally(shared) == "1 done", said
    for one, other in zip(local, remote, strict=True):
        assert one.member.id == other.member.id
        assert one.result and other.result
        for key in ("bpb", "bits", "artifact_bytes", "text_hash", "step"):
            assert getattr(one.result, key) == getattr(other.result, key), key
        runs = [Run(tmp_path / side / "tiny" / one.member.id) for side in ("local", "ray")]
        files = [run.artifact(one.result.artifact).read_bytes() for run in runs]
        assert files[0] == files[1]


@pytest.mark.slow
def test_as_nice_as_the_local_pool_and_once(tmp_path: Path) -> None:
    """In a cluster that starts here; a job that exits by itself, with 0 and nothing done, is not executed again."""
    ray = pytest.importorskip("ray", reason="needs niblick[ray]")
    executor = RayExecutor()
    try:
        found, counted = tmp_path / "nice", tmp_path / "counted"
        recipe = (
            "import os\n"
            f"open({str(found)!r}, 'w').write(str(os.getpriority(os.PRIO_PROCESS, 0)))\n"
            f"open({str(counted)!r}, 'a').write('x')\n"
            "os._exit(0)\n"
        )
        (tmp_path / "sweep.json").write_text("{}")
        executor.submit(Job("a", str(tmp_path), {}, recipe, {}, 1))
        deadline = time.monotonic() + 60
        while not (ended := executor.ended()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [(each.run, each.code, each.note) for each in ended] == [("a", 0, "")]
        assert int(found.read_text()) == os.getpriority(os.PRIO_PROCESS, 0)
        assert counted.read_text() == "x"
    finally:
        executor.close()
    assert not ray.is_initialized()


def test_niceness_that_is_not_allowed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refuse(which: int, who: int, priority: int) -> None:
        tried.append(priority)
        raise PermissionError

    monkeypatch.setattr(ray_executor, "niceness", lambda: 15)
    monkeypatch.setattr(os, "setpriority", refuse)
    assert "have niceness 15, not the sweep's 0" in ray_executor._be_as_nice(0)
    assert ray_executor._be_as_nice(15) == ray_executor._be_as_nice(None) == ""
    assert tried == [0]
    monkeypatch.setattr(os, "setpriority", lambda *given: tried.append(given[2]))
    assert ray_executor._be_as_nice(3) == ""
    assert tried == [0, 3]


def tiny_one(data: Path) -> Any:
    return tiny_sweep(data, name="one", axes=[])


def test_an_address_that_does_not_answer() -> None:
    pytest.importorskip("ray", reason="needs niblick[ray]")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*ray start --head"):
        RayExecutor(address="127.0.0.1:9")
    with pytest.raises(ConfigError, match="is no address of a Ray cluster: write HOST:PORT"):
        RayExecutor(address="somewhere")


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install niblick\[ray\]"):
        RayExecutor()


def test_runs_come_back_whole_and_stay_in_their_directory(tmp_path: Path) -> None:
    made = Run(tmp_path / "made")
    (made.path / "artifacts" / "a").mkdir(parents=True)
    (made.path / "artifacts" / "a" / "artifact.nib").write_bytes(b"bytes")
    (made.path / "result.json").write_text("{}")
    (made.path / "half.tmp").write_text("left by a kill")
    _unpack(_packed(made.path), tmp_path / "back")
    found = sorted(p.relative_to(tmp_path / "back").as_posix() for p in (tmp_path / "back").rglob("*") if p.is_file())
    assert found == ["artifacts/a/artifact.nib", "result.json"]
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(ConfigError, match="outside its directory"):
        _unpack(buffer.getvalue(), tmp_path / "back")
