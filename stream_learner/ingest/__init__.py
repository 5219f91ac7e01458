"""records -> events: sources, typed decode, dead letters, identities."""
