"""Training data: from what a configuration names to batches of views."""
