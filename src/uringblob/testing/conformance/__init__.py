"""The contract as checks that any store can be asked."""
