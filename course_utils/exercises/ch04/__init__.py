"""The checks of chapter 04: dynamic axes."""
