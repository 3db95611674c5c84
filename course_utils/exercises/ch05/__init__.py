"""The checks of chapter 05: execution providers."""
