"""Commands on preference pairs."""
