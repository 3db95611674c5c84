"""The checks of chapter 11: language models."""
