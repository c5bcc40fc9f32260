"""What a spec would take."""
