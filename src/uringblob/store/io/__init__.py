"""What the store does with its engine: transfers, syncs, jobs, checksums."""
