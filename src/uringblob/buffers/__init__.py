"""Memory that the kernel may read and write, and its leases."""
