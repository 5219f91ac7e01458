"""Continual learning from e-commerce event streams."""
