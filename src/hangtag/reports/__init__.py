"""Pages and figures. A leaf: nothing but the command line imports it."""
