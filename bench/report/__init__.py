"""What is drawn from results."""
