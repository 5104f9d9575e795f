"""Many runs: what they are, and where they are trained."""
