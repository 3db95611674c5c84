"""The checks of chapter 03: tracing versus scripting."""
