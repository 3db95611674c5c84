"""What the doctor finds, one module a subject."""
