"""Public data sets: what is known of them, fetching and checking their files."""
