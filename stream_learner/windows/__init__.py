"""events -> slides -> aggregates -> examples."""
