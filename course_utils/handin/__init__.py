"""What a student keeps and hands in, and how it is examined."""
