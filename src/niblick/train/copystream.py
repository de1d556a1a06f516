"""Batches on their way to a GPU: copied on a stream of their own, while the ones before them are worked on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from niblick.data.loader import Batch


class CopyStream:
    """Copies batches out of pinned memory on a second stream: neither the host nor the step at work waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def __call__(self, batch: Batch) -> Callable[[], Batch]:
        """Start to copy a batch. Returns what gives it to the stream of the thread that calls for it."""
        with torch.cuda.stream(self.stream):
            ids_BL, targets_BL = (t.pin_memory().to(self.stream.device, non_blocking=True) for t in batch)
        copied = self.stream.record_event()

        def take() -> Batch:
            at_work = torch.cuda.current_stream(self.stream.device)
            at_work.wait_event(copied)
            for t in (ids_BL, targets_BL):
                t.record_stream(at_work)  # its memory is not given out anew before this stream is done with it
            return ids_BL, targets_BL

        return take
