"""What the outside sees: metrics, health."""
