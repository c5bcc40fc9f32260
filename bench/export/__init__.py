"""A trained model to take away."""
