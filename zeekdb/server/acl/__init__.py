"""Users and what they may do: `rules` has language and model, `log` what was refused, `store` the server's users."""
