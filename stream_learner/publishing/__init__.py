"""verdicts -> versions: checkpoints, export, announcements."""
