"""Pages and figures. No other folder but `cli` imports this one; users reach the figures as `hangtag.figures`."""
