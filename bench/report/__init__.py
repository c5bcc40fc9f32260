"""What is drawn from results: tables of typed cells, and renderers that only place and escape."""
