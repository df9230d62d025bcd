"""Where blocks go that host memory has no room for: one contract (tier), and those who keep it."""
