"""The published systems to 1e-4 in float32: losses in both modes, every gradient, states on the way."""

from __future__ import annotations

import pytest
import torch
from published import Reference, assert_close

HNET = ("model.levels.0.target_length=6.0", "model.levels.0.ratio_weight=0.05", 'model.main.layout="T3"')


def baseline() -> Reference:
    return Reference("baseline_gpt.npz", "baseline-sp1024", 'model.main.layout="T5"')


def hnet_sp1024() -> Reference:
    return Reference("hnet_sp1024.npz", "hnet-sp1024", *HNET)


def tinyhnet() -> Reference:
    return Reference("tinyhnet.npz", "tinyhnet", 'model.main.layout="T3"')


def soft_chunker() -> Reference:
    level = '{"encoder": null, "decoder": null, "router": "soft", "ratio_weight": 0.0, "lr_diff": 1.0}'
    layout = ('model.main.layout="T5"', f"model.levels=[{level}, {level}]")
    return Reference("soft_chunker_gpt.npz", "soft-chunker-sp1024", *layout)


def capped(divisor: int) -> Reference:
    capacity = f'model.levels.0.capacity="divisor:{divisor}"'
    file = f"hnet_byte260_capped{divisor}.npz"
    return Reference(file, "hnet-byte260", *HNET, capacity, weights="hnet_byte260.npz")


ALL = {
    "baseline": baseline,
    "hnet_sp1024": hnet_sp1024,
    "tinyhnet": tinyhnet,
    "soft_chunker": soft_chunker,
    "capped2": lambda: capped(2),
    "capped4": lambda: capped(4),
}


@pytest.mark.parametrize("name", ALL)
def test_losses_and_gradients(name: str) -> None:
    reference = ALL[name]()
    losses, _ = reference.model(reference.ids_BL, reference.targets_BL)
    assert_close(losses.lm, reference.out("eval_loss"), "loss in eval mode")
    assert_close(losses.total, reference.out("train_loss"), "loss in training mode")
    losses.total.backward()
    ours = {n: p.grad for n, p in reference.model.named_parameters()}
    published = reference.gradients()
    for tensor, gradient in published.items():
        assert ours[tensor] is not None, tensor
        assert_close(ours[tensor], gradient, f"gradient of {tensor}")
    if not name.startswith("capped"):  # the capped files hold three gradients, the others all that there are
        assert {n for n, g in ours.items() if g is not None} == set(published)


@pytest.mark.parametrize("name", ["hnet_sp1024", "tinyhnet"])
def test_states(name: str) -> None:
    reference = ALL[name]()
    model = reference.model
    with torch.no_grad():
        level = model.body.levels[0]
        chunks_BCD, packing, passage = level.down(model._enter(reference.ids_BL, []), None, None)
        main_BCD = model.body.main(chunks_BCD, packing)
        dechunked_BLD = level.dechunk(main_BCD, passage.start_BC, passage.routing)
        logits = model(reference.ids_BL)
    routing = passage.routing
    assert torch.equal(routing.boundary_BL, reference.out("boundary_mask"))
    assert_close(routing.p_BL, reference.out("boundary_prob"), "probabilities")
    assert_close(dechunked_BLD, reference.out("dechunked"), "dechunked states")
    assert_close(logits, reference.out("logits"), "logits")
    for row, count in enumerate(routing.chunks_B().tolist()):
        assert_close(chunks_BCD[row, :count], reference.out("chunked")[row, :count], "chunk states")
        if name == "hnet_sp1024":
            assert_close(main_BCD[row, :count], reference.out("main")[row, :count], "main states")
    if name == "hnet_sp1024":
        assert_close(passage.encoded_BLD, reference.out("encoder"), "encoder states")


@pytest.mark.parametrize("divisor", [2, 4])
def test_cap_on_chunks(divisor: int) -> None:
    reference = capped(divisor)
    with torch.no_grad():
        hidden_BLD, routings = reference.model.hidden(reference.ids_BL)
        logits = reference.model.head(hidden_BLD)
    assert_close(logits, reference.out("logits"), "logits")
    assert routings[0].dropped_B().tolist() == reference.out("truncated").tolist()
    assert int(routings[0].chunks_B().max()) <= reference.ids_BL.shape[1] // divisor


@pytest.mark.parametrize(("preset", "learns"), [("tinyhnet", False), ("tinyhnet-ste", True)])
def test_who_hears_the_language_model(preset: str, learns: bool) -> None:
    """As published, the language-model loss reaches neither gate nor threshold; confidence straight through lets it."""
    reference = Reference("tinyhnet.npz", preset, 'model.main.layout="T3"')
    losses, routings = reference.model(reference.ids_BL, reference.targets_BL)
    assert torch.equal(routings[0].boundary_BL, reference.out("boundary_mask"))
    assert_close(losses.lm, reference.out("eval_loss"), "loss in eval mode")
    losses.lm.backward()
    router = reference.model.body.levels[0].router
    gradients = [p.grad for p in (router.q.weight, router.k.weight, router.threshold)]
    for gradient in gradients:
        assert (gradient is not None and gradient.abs().max() > 1e-6) == learns
