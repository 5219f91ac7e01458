"""Why a version gives a score."""
