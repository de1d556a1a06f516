"""Models: tensors in, tensors out. No files, no clocks, no environment.

Tensor names carry their shape: B batch, L positions, C chunks, D width, H heads, K head width, V vocabulary,
N rows (batch × positions).
"""
