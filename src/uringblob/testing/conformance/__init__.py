"""The contract as checks that run against any store."""
