"""Recipes whose block `z` has the weights of a convolution block: one artifact is scored under each of them.

Cheats show only in real scoring, or need what nobody counts; honest oddities must pass.
"""

from __future__ import annotations

HEAD = """
import os, torch
from niblick.config.run_config import override
from niblick.model.layers import ConvBlock, register_block
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset

SETTINGS = {settings!r}

def recipe():
    return override(get_preset("hnet-small"), SETTINGS)
"""
PLAIN = "register_block('z', ConvBlock)\n"
FORWARD = """
class Z(ConvBlock):
    def forward(self, x_BLD, x0_BLD, context):
        out = super().forward(x_BLD, x0_BLD, context)
        {body}
        return out
register_block("z", Z)
"""
AHEAD = "out = torch.cat((out[:, :-1] + 20 * x0_BLD[:, 1:], out[:, -1:]), 1)"


def block(body: str) -> str:
    return FORWARD.format(body=body)


CHEATS: dict[str, tuple[str, str]] = {
    "a cost of its own": ("scored windows", PLAIN + """
own = LM.token_losses
LM.token_losses = lambda self, hidden, targets: 0.7 * own(self, hidden, targets)
"""),
    "looks ahead in larger batches only": ("scored windows", block(f"if len(out) >= 6: {AHEAD}")),
    "looks ahead in whole windows only": ("scored windows", block(f"if out.shape[1] == 64: {AHEAD}")),
    "looks ahead beyond some position": ("scored windows", block(
        "if out.shape[1] > 41: out[:, 40:-1] += 20 * x0_BLD[:, 41:]"
    )),
    "wakes after many tokens": ("scored windows", """
seen = [0]
""" + block(f"seen[0] += out[..., 0].numel()\n        if seen[0] > 20_000: {AHEAD}")),
    "reads the text it is scored on": ("files", """
import glob, numpy as np
""" + block("self.text = [np.fromfile(f, np.uint16)[:9] for f in glob.glob({data!r} + '/datasets/*/*_val_*.bin')]")),
    "a table in a safetensors file": ("files", """
from safetensors.torch import load_file
""" + block("out = out + load_file({table!r} + '.safetensors')['t'].to(out)")),
    "a table in a file": ("files", block("out = out + torch.tensor(list(open({table!r}, 'rb').read()[:1])).to(out)")),
    "a table by another process": ("processes", """
import subprocess
""" + block("out = out + float(subprocess.run(['cat', {table!r}], capture_output=True, check=True).stdout[0])")),
    "a table in the environment": ("failure", block("out = out + float(os.environ['NIB_ODD_TABLE'])")),
}  # fmt: skip
"""Kind → (where it is told, the recipe after HEAD)."""
HONEST: dict[str, str] = {
    "a plain block": PLAIN,
    "a state of all before": block("out = out + x_BLD.cumsum(1) / torch.arange(1, out.shape[1] + 1)[:, None]"),
    "a counter that changes nothing": "seen = [0]\n" + block("seen[0] += out.numel()"),
}
