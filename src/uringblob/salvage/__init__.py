"""What can be saved of a store that does not open."""
