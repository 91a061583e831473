"""Conversations computed in processes of their own."""
