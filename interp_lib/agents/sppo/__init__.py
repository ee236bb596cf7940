"""Semantic clustering (NeurIPS 2025): PPO, and SPPO with its online 2-D clustering module."""
