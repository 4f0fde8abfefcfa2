"""Layers between raw columns and numbers: text, categories, bins, and statistics found by `adapt`."""
