"""Models, and what trains or samples them."""
