"""Several processes that train one model: the ranks of `torchrun`. One process alone is the same with nothing to share.

Gradients go through DistributedDataParallel; what steers a run (clock, signals, losses) goes through small sums on the
CPU, so that all ranks decide alike. Rank 0 alone writes files and speaks, but for errors: then whoever is first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from niblick.errors import ConfigError, NiblickError, TrainingError

PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others: rank 0 may score for long. A rank that dies is noticed at once."""
LAUNCHED = "niblick-"
"""How the job ids of our own launcher begin: it speaks for ranks that died, and survivors need not."""
_PATH_BYTES = 4096


class RankLost(TrainingError):
    """Another rank is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process among all: its rank, how many there are, and its place on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def sum_(self, tensor: Tensor) -> None:
        """Sum a tensor over all ranks, in place, on its device."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def agree(self, flag: int, values: Sequence[float] = ()) -> tuple[int, list[float]]:
        """Return the largest flag of any rank, and the values of rank 0."""
        flags = [0.0] * self.size
        flags[self.rank] = float(flag)
        summed = self.sum([*flags, *(values if self.main else [0.0] * len(values))])
        return int(max(summed[: self.size])), summed[self.size :]

    def barrier(self) -> None:
        """Wait for all."""
        self.sum([0.0])

    def share_path(self, path: Path | None) -> Path:
        """Return the path that rank 0 has."""
        if self.size == 1:
            assert path is not None
            return path
        name = str(path).encode() if self.main else b""
        buffer = torch.zeros(_PATH_BYTES, dtype=torch.uint8)
        buffer[: len(name)] = torch.tensor(list(name), dtype=torch.uint8)
        dist.broadcast(buffer, 0)
        return Path(bytes(buffer.tolist()).rstrip(b"\0").decode())

    def expect_device(self, device: torch.device) -> None:
        """Raise ConfigError if training is to run on GPUs and this rank has none of its own."""
        if self.size > 1 and device.type == "cuda" and self.local_rank >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ConfigError(
                f"{self.size} ranks want a GPU each, and this machine has {count}: "
                f"give --devices {count}, or set train.device=cpu"
            )

    def wrap(self, module: nn.Module, device: torch.device, unused: bool) -> nn.Module:
        """Return the module with gradients that are sums over all ranks; `unused`: not all weights get one.

        On the CPU they are added in the order of ranks, as one process adds those of its passes. Muon makes visible
        steps of differences in the last bit: so there are none, and N ranks train the bits that one process trains.
        """
        if self.size == 1:
            return module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has a new name since 2.13
            wrapped = nn.parallel.DistributedDataParallel(
                module,
                device_ids=[self.local_rank] if device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=unused,
            )
        reduce = _sum if device.type == "cuda" else _sum_in_order
        wrapped.register_comm_hook(self, lambda ranks, bucket: reduce(ranks, bucket))  # torch reads annotations
        return wrapped


SINGLE = Ranks()


def _sum(ranks: Ranks, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def _sum_in_order(ranks: Ranks, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(ranks.size)]
    work = dist.all_gather(parts, own, async_op=True)
    assert work is not None

    def add(done: Any) -> Tensor:
        done.value()
        own.copy_(parts[0])
        for part in parts[1:]:
            own.add_(part)
        return own

    return work.get_future().then(add)


def local_gradients(forward: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Inside, backward passes of a wrapped module keep gradients to this rank: more passes of the step follow."""
    own: contextlib.AbstractContextManager[Any] = (
        forward.no_sync() if isinstance(forward, nn.parallel.DistributedDataParallel) else contextlib.nullcontext()
    )
    return own


def is_lost(error: BaseException) -> bool:
    """Whether an exception says that another rank is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def ignore_termination() -> None:
    """Let SIGTERM pass from now on: a launcher sends it to whoever outlives a rank, who is about to say why it ends."""
    with contextlib.suppress(ValueError):  # handlers can be set from the main thread alone
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks that torchrun started, if it did; leave them at the end.

    An error is spoken by one rank: the first that leaves with it. The others end with the same exit code, silently.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE
        return
    ranks = Ranks(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    cuda = torch.cuda.is_available() and torch.cuda.device_count() > ranks.local_rank
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield ranks
    except NiblickError as error:
        ignore_termination()
        if not _speaks(error):
            time.sleep(1.0)  # the launcher ends all ranks at the first that fails: let that one say why
            raise SystemExit(error.exit_code) from None
        raise
    except Exception as error:
        if not is_lost(error):
            _first()  # its traceback says enough
            raise
        ignore_termination()
        lost = RankLost(f"rank {ranks.rank} of {size} lost another one, which has died: all ranks stop")
        if not _speaks(lost):
            time.sleep(1.0)
            raise SystemExit(lost.exit_code) from None
        raise lost from error
    dist.destroy_process_group()


def _speaks(error: NiblickError) -> bool:
    if isinstance(error, RankLost) and os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(LAUNCHED):
        return False
    return _first()


def _first() -> bool:
    """Whether this rank is the first to say something. If the others cannot be asked any more: whether it is rank 0."""
    try:
        return dist.distributed_c10d._get_default_store().add("niblick/said", 1) == 1
    except Exception:
        return os.environ["RANK"] == "0"
