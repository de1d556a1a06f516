"""What real logs open with: the whole training script, and what nvidia-smi says. Written for these tests."""

from __future__ import annotations

RULE = "=" * 100

SCRIPT = '''"""A training script, as such scripts look.

step:100/20000 train_loss:9.9999 is what a line of the log looks like, and so are these:
"""
import os

class Hyperparameters:
    seed = int(os.environ.get("SEED", 7))
    iterations: int = 123
    max_wallclock_seconds = 1.0  # max_wallclock_seconds:1.000

def main():
    log0(f"model_params:{sum(p.numel() for p in model.parameters())}")
    log0(f"seed:{args.seed}")
    log0(f"warmup_step:{step + 1}/{args.warmup_steps}")
    log0(f"step:{step}/{args.iterations} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} train_time:{t:.0f}ms")
    log0(f"step:{step}/{args.iterations} train_loss:{loss.item():.4f} train_time:{t:.0f}ms step_avg:{t / step:.2f}ms")
    log0(f"stopping_early: wallclock_cap train_time:{t:.0f}ms step:{step}/{args.iterations}")
    log0(f"Serialized model int8+zlib: {quant_bytes} bytes (payload:{payload} raw_torch:{raw} payload_ratio:{x:.2f}x)")
    log0(f"Total submission size int8+zlib: {quant_bytes + code_bytes} bytes")
    log0(f"final_int8_zlib_roundtrip_exact val_loss:{q_loss:.8f} val_bpb:{q_bpb:.8f}")
    "val_bpb:{:.8f}".format(val_bpb)
    raise ValueError("Traceback (most recent call last): is no reason to worry")
'''

ADVERSARIAL = '''"""
model_params:11
seed:99
step:100/20000 train_loss:9.9999 train_time:1ms step_avg:1.00ms
step:100/20000 val_loss:9.9999 val_bpb:9.9999 train_time:1ms step_avg:1.00ms
Serialized model int8+zlib: 5 bytes
Total submission size int8+zlib: 6 bytes
final_int8_zlib_roundtrip_exact val_loss:9.00000000 val_bpb:9.00000000
"""
'''

MACHINE = """Running Python 3.12.3 (main) [GCC 13.2.0]
Running PyTorch 2.9.0+cu128
Sat Mar 21 10:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.00                 Driver Version: 550.00         CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
|   0  NVIDIA H100 80GB HBM3          On  |   00000000:0A:00.0 Off |                    0 |
| N/A   38C    P0            120W /  700W |    1520MiB /  81559MiB |      0%      Default |
+-----------------------------------------+------------------------+----------------------+
"""

PLAIN = SCRIPT + MACHINE
"""Without the lines that mark where the script ends."""

RULED = f"{SCRIPT}{ADVERSARIAL}{RULE}\n{MACHINE}{RULE}\n"
"""With them, and with lines in the script that could not be told from the log's own."""
