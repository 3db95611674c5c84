"""The checks of chapter 06: fusion."""
