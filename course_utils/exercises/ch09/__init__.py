"""The checks of chapter 09: troubleshooting, the hospital."""
