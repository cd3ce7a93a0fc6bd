"""Binary feature models: architectures, losses, training, export and Paddle inference."""
