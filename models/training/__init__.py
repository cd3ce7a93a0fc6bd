"""Training of binary feature models: configuration, data, augmentation and the loop."""
