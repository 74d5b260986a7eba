"""What a run leaves: JSON, a table for the terminal, plots, Markdown."""
