"""Stores of many blobs: how one is made without writing a terabyte, and what is measured in one."""
