"""What is measured of estimates: errors, costs, causes."""
