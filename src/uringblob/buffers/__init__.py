"""Memory that the kernel may move, and who leases it."""
