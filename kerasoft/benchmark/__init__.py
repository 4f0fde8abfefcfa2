"""Measurements that a user runs on his own machine: ``python -m kerasoft.benchmark kernels``."""
