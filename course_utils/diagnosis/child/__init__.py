"""What the doctor asks in a process of its own."""
