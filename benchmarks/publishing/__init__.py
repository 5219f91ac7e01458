"""What publishing costs the worker, and what following costs a server."""
