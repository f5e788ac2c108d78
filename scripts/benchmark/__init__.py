"""Measurements of relit against the textbook way of doing the same (`python scripts/benchmark.py`)."""
