"""`run`: chains of configurations, each trained from what came before."""
