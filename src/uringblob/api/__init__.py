"""The contract, once: the two traits, and what their methods take and return."""
