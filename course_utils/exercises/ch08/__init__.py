"""The checks of chapter 08: deployment."""
