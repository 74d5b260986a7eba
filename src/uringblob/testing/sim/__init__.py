"""A simulated disk, engine and event loop, deterministic under one seed."""
