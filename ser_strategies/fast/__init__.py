"""Faster ways to compute the same, on by default: attention, dropout, optimizer steps, memory."""
