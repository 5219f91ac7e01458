"""The task `next_item`: which item a session goes on to, learned from the same slides as conversion."""
