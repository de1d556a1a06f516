"""Weights to bytes: schemes, GPTQ, residuals, sensitivities, and fits to a cap.

The package can be called: `niblick.pack(state_dict, scheme, cap)` packs anyone's weights (see `weights.pack_weights`).
"""
