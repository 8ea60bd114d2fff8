"""From files to answers: whatever a user points at, classified on all cores. Never torch."""
