"""scores -> verdicts: metrics, drift, gate."""
