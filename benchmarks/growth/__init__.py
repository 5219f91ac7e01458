"""What an event costs as everything around it grows, and what memory each thing held takes."""
