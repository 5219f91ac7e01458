"""What it costs to learn from a stream, in CPU-seconds per million events, the usual ways of doing it beside it."""
