"""Which slot holds which blob and which slot is free: pure, no I/O."""
