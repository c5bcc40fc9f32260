"""A spec made concrete, and run."""
