"""Stores beyond one machine: the trait over objects in a bucket."""
