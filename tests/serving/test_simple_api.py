"""The simple API: pictures in, answers out."""
