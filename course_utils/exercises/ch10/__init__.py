"""The checks of chapter 10: the capstone, the quest."""
