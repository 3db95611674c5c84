"""The checks of chapter 01: graph structure."""
