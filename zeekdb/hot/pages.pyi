"""For the hot room only: nothing here is called from Python."""
