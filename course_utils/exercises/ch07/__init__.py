"""The checks of chapter 07: quantization."""
