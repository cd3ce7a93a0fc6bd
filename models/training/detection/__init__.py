"""Training of main-body detectors: boxes, scenes to learn from, assignment, measures."""
