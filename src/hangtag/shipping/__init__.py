"""A model for use without hangtag, or with as little of it as possible: model servers, containers, browsers."""
