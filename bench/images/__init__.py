"""Making images, and reading them."""
