"""What the logs in shared/data/logs say, read by eye: what `niblick watch --once --json` must print of each."""

from __future__ import annotations

from typing import Any

LOGS: dict[str, dict[str, Any]] = {
    "11L_EMA_GPTQ-lite_warmdown3500_QAT015_1_1233__train_seed42.txt": {
        "phase": "done",
        "step": 7103,
        "steps": 20000,
        "train_loss": 1.7895,
        "val_bpb": 1.1403,
        "final_bpb": 1.12360306,
        "final_metric": "final_int6_sliding_window_exact",
        "artifact_bytes": 15473072,
        "total_bytes": 15540675,
        "model_params": 26993756,
        "seed": 42,
        "train_time_ms": 600059,
        "eta_seconds": 0.0,
    },
    "HNet_ByteVsSubword_Study__train_byte260_best_10_min.txt": {
        "phase": "done",
        "step": 4520,
        "steps": 20000,
        "train_loss": 1.0557,
        "val_bpb": 1.3999,
        "final_bpb": 1.40320671,
        "final_metric": "final_int8_zlib_roundtrip_exact",
        "artifact_bytes": 15722521,
        "total_bytes": 15779986,
        "model_params": 17455176,
        "seed": 1337,
        "train_time_ms": 599995,
        "eta_seconds": 0.0,
    },
    "HNet_ByteVsSubword_Study__train_sp1024_best_10_min.txt": {
        "phase": "done",
        "step": 5463,
        "steps": 20000,
        "train_loss": 2.3692,
        "val_bpb": 1.3658,
        "final_bpb": 1.37344745,
        "final_metric": "final_int8_zlib_roundtrip_exact",
        "artifact_bytes": 15939775,
        "total_bytes": 15998337,
        "model_params": 16666696,
        "seed": 1337,
        "train_time_ms": 600080,
        "eta_seconds": 0.0,
    },
    "NaiveBaseline__train.txt": {
        "phase": "done",
        "step": 13780,
        "steps": 20000,
        "train_loss": 1.9910,
        "val_bpb": 1.2172,
        "final_bpb": 1.22436570,
        "final_metric": "final_int8_zlib_roundtrip_exact",
        "artifact_bytes": 15815847,
        "total_bytes": 15863489,
        "model_params": 17059912,
        "seed": 1337,
        "train_time_ms": 600038,
        "eta_seconds": 0.0,
    },
    "SP8192_QK5_LegalTTT_1_0828__train_seed0.txt": {
        "phase": "done",
        "step": 5082,
        "steps": 20000,
        "train_loss": None,
        "val_bpb": None,
        "final_bpb": 1.08209788,
        "final_metric": "legal_ttt_exact",
        "artifact_bytes": 15974299,
        "total_bytes": 15991018,
        "model_params": 35943512,
        "seed": None,
        "train_time_ms": 588035,
        "eta_seconds": 0.0,
    },
}

SCORES: dict[str, list[tuple[str, float, float]]] = {
    "11L_EMA_GPTQ-lite_warmdown3500_QAT015_1_1233__train_seed42.txt": [
        ("roundtrip", 1.14727208, 5.814),
        ("sliding", 1.12360306, 73.133),
    ],
    "HNet_ByteVsSubword_Study__train_byte260_best_10_min.txt": [("roundtrip", 1.40320671, 8.881)],
    "HNet_ByteVsSubword_Study__train_sp1024_best_10_min.txt": [("roundtrip", 1.37344745, 3.221)],
    "NaiveBaseline__train.txt": [("roundtrip", 1.22436570, 1.401)],
    "SP8192_QK5_LegalTTT_1_0828__train_seed0.txt": [
        ("roundtrip", 1.10066167, 7.815),
        ("sliding", 1.08397143, 83.620),
        ("ttt", 1.08209788, 293.430),
    ],
}
"""Kind, BPB and seconds of every score."""

COUNTS: dict[str, tuple[int, int, float | None]] = {
    "11L_EMA_GPTQ-lite_warmdown3500_QAT015_1_1233__train_seed42.txt": (24, 3, 600.0),
    "HNet_ByteVsSubword_Study__train_byte260_best_10_min.txt": (32, 6, 600.0),
    "HNet_ByteVsSubword_Study__train_sp1024_best_10_min.txt": (37, 7, 600.0),
    "NaiveBaseline__train.txt": (285, 70, 600.0),
    "SP8192_QK5_LegalTTT_1_0828__train_seed0.txt": (0, 0, 588.0),
}
"""Logged training steps, validations, and the cap of the clock in seconds."""
