"""Past one machine: the work of the other rooms on a Ray cluster. The only room that imports Ray; a leaf."""
