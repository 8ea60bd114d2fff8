"""Pages and figures. Only the command line imports this room."""
