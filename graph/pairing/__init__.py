"""What corresponds in two graphs, and what differs without running them."""
