"""The checks of chapter 02: opsets."""
