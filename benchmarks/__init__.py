"""The worker on real event sets."""
