"""What lessons read, run, measure and compare with; no widgets."""
