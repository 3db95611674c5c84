"""Reading a model file that may be anything."""
