"""How long it takes from an event's append to Kafka until a version that has learned from it answers requests."""
