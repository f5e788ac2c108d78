"""Scripts that look into finished runs, or run a study."""
